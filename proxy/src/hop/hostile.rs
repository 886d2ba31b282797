//! The door that bytes of other nodes come in through, as a function of bytes alone, for fuzzing and the property tests.

use super::wire::{self, Heard, Key};
use crate::table::Token;

/// Treats `bytes` as what a node has sent so far; once as they are, and once signed with the right token, so that what
/// lies behind the signature is reached too.
pub fn header(bytes: &[u8]) {
    let key = Key::new(&Token([7; 32]));
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
