//! A whole call as a runtime makes it: environment and stdin.
#![no_main]

mod seeds;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: netd_seeds::plant(seeds::ALL), |input: &[u8]| netd_cni::hostile::call(input));
