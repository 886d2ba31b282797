//! The door that bytes of other nodes come in through, as a function of bytes alone, for fuzzing and the property tests.

use super::wire::{self, Header, Heard, Key};
use crate::table::{ProxyProtocol, Token};

fn key() -> Key {
    Key::new(&Token([7; 32]))
}

/// Treats `bytes` as what a node has sent so far; once as they are, and once signed with the right token, so that what
/// lies behind the signature is reached too.
pub fn header(bytes: &[u8]) {
    let key = key();
    heard(&key, bytes);
    heard(&key, &wire::signed(&key, bytes));
}

fn heard(key: &Key, bytes: &[u8]) {
    if let Ok((_, whole)) = wire::split(bytes) {
        assert!(bytes.starts_with(whole));
    }
    if let Heard::Header(header, length) = wire::read(key, bytes) {
        // There is one way to say a thing: what was read is what would be written.
        let mut again = Vec::new();
        assert!(header.write(key, &mut again));
        assert_eq!(again, &bytes[..length]);
    }
}

/// What fuzzing begins with: headers of a connection and of a datagram, and what is signed of each.
pub fn headers() -> Vec<Vec<u8>> {
    let connection = Header {
        service: "service/0123",
        backend: "endpoint",
        target_port: 80,
        client: ([192, 0, 2, 7], 51234).into(),
        asked: ([0xfd00_u16, 0, 0, 0, 0, 0, 0, 1], 8080).into(),
        as_client: true,
        proxy_protocol: Some(ProxyProtocol::V2),
        nonce: 0,
        is_datagram: false,
    };
    let datagram =
        Header { as_client: false, proxy_protocol: None, nonce: 9, is_datagram: true, ..connection };
    let both = [connection, datagram].into_iter().flat_map(|header| {
        let mut whole = Vec::new();
        assert!(header.write(&key(), &mut whole), "the names are short");
        let body = wire::body(&whole).to_vec();
        [whole, body]
    });
    both.collect()
}
