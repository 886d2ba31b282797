//! Bytes as another node (or somebody who claims to be one) sends them. Run: `cargo fuzz run hop_header` in the crate's
//! folder.

#![no_main]

use netd_proxy::hostile::{header, headers};

libfuzzer_sys::fuzz_target!(init: netd_seeds::plant(headers()), |bytes: &[u8]| header(bytes));
