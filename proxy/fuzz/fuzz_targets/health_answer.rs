//! Bytes as a server under a health check sends them. Run: `cargo fuzz run health_answer` in the crate's folder.

#![no_main]

const SEEDS: [&str; 2] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.0 503\n\n",
];

libfuzzer_sys::fuzz_target!(
    init: netd_seeds::plant(SEEDS),
    |bytes: &[u8]| netd_proxy::hostile::answer(bytes)
);
