//! A whole call as a runtime makes it: environment and stdin.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| netd_cni::hostile::call(input));
