//! Bytes as they stand in the file of the cluster's last known records. Run: `cargo fuzz run copy` in the crate's folder.

#![no_main]

use netd::hostile::{copy, sound};

libfuzzer_sys::fuzz_target!(init: netd_seeds::plant(sound::copies()), |bytes: &[u8]| copy(bytes));
