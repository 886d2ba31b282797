//! Bytes as they stand in a journal. Run: `cargo fuzz run journal` in the crate's folder.

#![no_main]

use netd::hostile::{journal, sound};

libfuzzer_sys::fuzz_target!(init: netd_seeds::plant(sound::journals()), |bytes: &[u8]| journal(bytes));
