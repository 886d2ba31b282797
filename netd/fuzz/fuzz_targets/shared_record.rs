//! Bytes as they stand in a record of the cluster's store. Run: `cargo fuzz run shared_record` in the crate's folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netd::hostile::shared_record(bytes));
