//! Bytes as an upstream server sends them. Run: `cargo fuzz run upstream_reply` in the crate's folder.

#![no_main]

/// The client's three bytes and a header, behind which the question is put, and then records: an alias and its address;
/// a refusal with an authority; a signed address with EDNS.
const SEEDS: [&[u8]; 3] = [
    b"\x40\x01\x05\0\x01\x81\x80\0\x01\0\x02\0\0\0\0\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01e\xc0\x10\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01",
    b"\x08\0\0\0\x01\x81\x83\0\x01\0\0\0\x01\0\0\xc0\x10\0\x06\0\x01\0\0\0\x3c\0\x18\xc0\x0c\xc0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
    b"\xff\x03\0\0\x01\x81\xa0\0\x01\0\x01\0\0\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0",
];

libfuzzer_sys::fuzz_target!(
    init: netd_seeds::plant(SEEDS),
    |message: &[u8]| netd_dns::hostile::upstream_reply(message)
);
