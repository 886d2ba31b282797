//! Bytes as they stand in a journal. Run: `cargo fuzz run journal` in the crate's folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netd::hostile::journal(bytes));
