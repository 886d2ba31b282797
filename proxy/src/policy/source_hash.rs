//! One client address, one backend, on every node: each pair of client and backend has a score, the highest wins
//! (rendezvous hashing). When a backend goes, only its own clients move; when it comes, it takes its share from all.

use super::{Candidate, Draw, Field, hash_address, hash_key, mix};

#[derive(Debug)]
pub(crate) struct SourceHash {
    keys: Box<[u64]>,
}

impl SourceHash {
    pub(super) fn new(candidates: &[Candidate<'_>]) -> Self {
        Self { keys: candidates.iter().map(|candidate| hash_key(candidate.key, 0)).collect() }
    }

    pub(super) fn pick(&self, draw: &Draw, field: &impl Field) -> Option<usize> {
        let client = hash_address(draw.client.ip());
        let best = |is_out: &dyn Fn(usize) -> bool| {
            let left = self.keys.iter().enumerate().filter(|(index, _)| !is_out(*index));
            left.max_by_key(|(_, key)| mix(client ^ **key)).map(|(index, _)| index)
        };
        // Who is out is asked of all only when it is the one that would be chosen.
        let first = best(&|_| false)?;
        if field.is_out(first) { best(&|index| field.is_out(index)) } else { Some(first) }
    }
}
