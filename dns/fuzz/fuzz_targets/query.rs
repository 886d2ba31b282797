//! Bytes as a client sends them. Run: `cargo fuzz run query` in the crate's folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| netd_dns::hostile::query(message));
