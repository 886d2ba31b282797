//! Bytes as they stand in the file of the cluster's last known records. Run: `cargo fuzz run copy` in the crate's folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netd::hostile::copy(bytes));
