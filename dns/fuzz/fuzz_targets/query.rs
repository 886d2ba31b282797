//! Bytes as a client sends them. Run: `cargo fuzz run query` in the crate's folder.

#![no_main]

/// For `a.b`, plain; for every type of `s`, with EDNS and a cookie; and one whose name is compressed.
const SEEDS: [&[u8]; 3] = [
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01",
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\x01\x01s\0\0\xff\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x08cookie!!",
    b"\0\x01\x01\0\0\x01\0\x01\0\0\0\0\x01m\0\0\x1c\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01",
];

libfuzzer_sys::fuzz_target!(
    init: netd_seeds::plant(SEEDS),
    |message: &[u8]| netd_dns::hostile::query(message)
);
