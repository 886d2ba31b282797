//! Bytes as they stand in a state file. Run: `cargo fuzz run state_file` in the crate's folder.

#![no_main]

use std::sync::LazyLock;

static DIRECTORY: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a directory for the state file"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| netd::hostile::state_file(DIRECTORY.path(), input));
