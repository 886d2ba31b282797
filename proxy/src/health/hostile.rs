//! The door that bytes of a server under a health check come in through.

use super::answer::{Answer, status};

/// Treats `bytes` as what a server has sent, in two pieces cut anywhere: more of it never changes what was said before.
pub fn answer(bytes: &[u8]) {
    let whole = status(bytes);
    for cut in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let before = status(&bytes[..cut]);
        assert!(before == Answer::More || before == whole);
    }
}
