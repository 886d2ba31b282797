//! What makes two questions the same one to an upstream server. Pure; on the stack, so that a look into the cache
//! allocates nothing.

use crate::name::MAX_WIRE_NAME;
use crate::parse::{Heading, flag};
use crate::target::Target;

/// What equal questions have in common: target, flags, and the question in lower case.
pub(crate) struct ForwardKey {
    bytes: [u8; Self::PREFIX + MAX_WIRE_NAME + 4],
    length: usize,
}

impl ForwardKey {
    const PREFIX: usize = 9;

    /// `asked` is who asks how; what is asked may be something else, where an alias is followed.
    pub(crate) fn of(target: &Target, asked: &Heading<'_>, question: &[u8]) -> Self {
        let mut key = Self { bytes: [0; _], length: Self::PREFIX + question.len() };
        let wishes = asked.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        let dnssec_ok = asked.edns.is_some_and(|edns| edns.dnssec_ok);
        key.bytes[..8].copy_from_slice(&target.id.to_be_bytes());
        key.bytes[8] = u8::from(wishes & flag::RECURSION_DESIRED != 0)
            | (u8::from(wishes & flag::CHECKING_DISABLED != 0) << 1)
            | (u8::from(dnssec_ok) << 2);
        let kept = &mut key.bytes[Self::PREFIX..key.length];
        kept.copy_from_slice(question);
        // Lengths of labels are below any letter, type and class are not touched.
        let name = kept.len() - 4;
        kept[..name].make_ascii_lowercase();
        key
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(crate) fn question(&self) -> &[u8] {
        &self.bytes[Self::PREFIX..self.length]
    }
}
