//! Bytes as they stand in a record of the state file. Run: `cargo fuzz run record` in the crate's folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netd::hostile::record(bytes));
