//! Bytes as they stand in a state file. Run: `cargo fuzz run state_file` in the crate's folder.

#![no_main]

use std::sync::LazyLock;

use netd::hostile::{sound, state_file};

static DIRECTORY: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a directory for the state file"));

libfuzzer_sys::fuzz_target!(
    init: netd_seeds::plant(sound::state_files()),
    |input: &[u8]| state_file(DIRECTORY.path(), input)
);
