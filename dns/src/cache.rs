//! Upstream answers that are still good. Two generations: what is asked for again moves to the young one; when that is
//! full it becomes the old one and the old one goes. So the cache is bounded in entries and bytes, and no list has to be
//! kept in order. Time is an argument.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::upstream_reply::UpstreamReply;

pub(crate) struct Cache {
    young: Generation,
    old: Generation,
    limits: Limits,
}

/// What both generations together may hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub entries: usize,
    pub bytes: usize,
    pub positive: Duration,
    pub negative: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4096,
            bytes: 4 << 20,
            positive: Duration::from_secs(3600),
            negative: Duration::from_secs(300),
        }
    }
}

#[derive(Default)]
struct Generation {
    entries: HashMap<Box<[u8]>, Kept>,
    bytes: usize,
}

struct Kept {
    reply: Rc<UpstreamReply>,
    since: Instant,
    until: Instant,
}

impl Cache {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { young: Generation::default(), old: Generation::default(), limits }
    }

    /// The answer kept under `key` and its age in seconds.
    pub(crate) fn get(&mut self, key: &[u8], now: Instant) -> Option<(Rc<UpstreamReply>, u32)> {
        if !self.young.entries.contains_key(key) {
            let (key, kept) = self.old.take(key)?;
            if now < kept.until {
                self.insert(key, kept);
            }
        }
        let kept = self.young.entries.get(key)?;
        if now >= kept.until {
            self.young.take(key);
            return None;
        }
        let age = now.saturating_duration_since(kept.since).as_secs();
        Some((kept.reply.clone(), u32::try_from(age).unwrap_or(u32::MAX)))
    }

    /// Keeps `reply` for as long as it says, if it says so.
    pub(crate) fn put(&mut self, key: &[u8], reply: Rc<UpstreamReply>, now: Instant) {
        let Some(seconds) = reply.lifetime() else { return };
        let cap = if reply.is_positive() { self.limits.positive } else { self.limits.negative };
        let until = now + Duration::from_secs(seconds.into()).min(cap);
        self.old.take(key);
        self.insert(key.into(), Kept { reply, since: now, until });
    }

    fn insert(&mut self, key: Box<[u8]>, kept: Kept) {
        self.young.take(&key);
        let bytes = footprint(&key, &kept);
        let full = self.young.entries.len() >= self.limits.entries / 2
            || self.young.bytes + bytes > self.limits.bytes / 2;
        if full {
            self.old = std::mem::take(&mut self.young);
        }
        if bytes <= self.limits.bytes / 2 {
            self.young.bytes += bytes;
            self.young.entries.insert(key, kept);
        }
    }
}

impl Generation {
    fn take(&mut self, key: &[u8]) -> Option<(Box<[u8]>, Kept)> {
        let (key, kept) = self.entries.remove_entry(key)?;
        self.bytes -= footprint(&key, &kept);
        Some((key, kept))
    }
}

fn footprint(key: &[u8], kept: &Kept) -> usize {
    key.len() + size_of::<Kept>() + kept.reply.footprint()
}

#[cfg(test)]
mod tests;
