//! Bytes as an upstream server sends them. Run: `cargo fuzz run upstream_reply` in the crate's folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| netd_dns::hostile::upstream_reply(message));
