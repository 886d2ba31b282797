//! Bytes as they stand in a record of the state file. Run: `cargo fuzz run record` in the crate's folder.

#![no_main]

use netd::hostile::{record, sound};

libfuzzer_sys::fuzz_target!(init: netd_seeds::plant(sound::records()), |bytes: &[u8]| record(bytes));
