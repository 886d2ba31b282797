//! Bytes as another node (or somebody who claims to be one) sends them. Run: `cargo fuzz run hop_header` in the crate's
//! folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netd_proxy::hostile::header(bytes));
