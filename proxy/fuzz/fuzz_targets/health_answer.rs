//! Bytes as a server under a health check sends them. Run: `cargo fuzz run health_answer` in the crate's folder.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netd_proxy::hostile::answer(bytes));
