//! Bytes as they stand in a record of the cluster's store. Run: `cargo fuzz run shared_record` in the crate's folder.

#![no_main]

use netd::hostile::{shared_record, sound};

libfuzzer_sys::fuzz_target!(init: netd_seeds::plant(sound::shared_records()), |bytes: &[u8]| shared_record(bytes));
