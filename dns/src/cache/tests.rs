use super::*;
use crate::parse::{CLASS_IN, HEADER, flag, rtype};

const SECOND: Duration = Duration::from_secs(1);

/// A reply that may be kept for `ttl` seconds, `extra` bytes longer than it has to be.
fn reply(ttl: u32, extra: u16) -> Rc<UpstreamReply> {
    let [t0, t1] = rtype::A.to_be_bytes();
    let [c0, c1] = CLASS_IN.to_be_bytes();
    let question = [0, t0, t1, c0, c1];
    let mut message = vec![0; HEADER];
    message[2..4].copy_from_slice(&(flag::RESPONSE | flag::RECURSION_DESIRED).to_be_bytes());
    (message[5], message[7]) = (1, 1);
    message.extend_from_slice(&question);
    message.extend_from_slice(&question);
    message.extend_from_slice(&ttl.to_be_bytes());
    message.extend_from_slice(&extra.to_be_bytes());
    message.resize(message.len() + usize::from(extra), 0);
    Rc::new(UpstreamReply::read(&message, &question).expect("well formed"))
}

fn cache(entries: usize, bytes: usize) -> Cache {
    Cache::new(Limits { entries, bytes, ..Limits::default() })
}

impl Cache {
    fn len(&self) -> usize {
        self.young.entries.len() + self.old.entries.len()
    }
}

#[test]
fn an_answer_is_kept_for_as_long_as_it_says() {
    let (mut cache, now) = (cache(8, 1 << 20), Instant::now());
    cache.put(b"k", reply(30, 4), now);
    assert_eq!(cache.get(b"k", now + 10 * SECOND).expect("fresh").1, 10);
    assert!(cache.get(b"other", now).is_none());
    assert!(cache.get(b"k", now + 30 * SECOND).is_none());
    assert_eq!(cache.len(), 0, "what is stale is gone");
    cache.put(b"k", reply(0, 4), now);
    assert_eq!(cache.len(), 0);
}

#[test]
fn no_answer_is_kept_for_days() {
    let (mut cache, now) = (cache(8, 1 << 20), Instant::now());
    cache.put(b"k", reply(1 << 30, 4), now);
    assert!(cache.get(b"k", now + Limits::default().positive - SECOND).is_some());
    assert!(cache.get(b"k", now + Limits::default().positive).is_none());
}

#[test]
fn the_number_of_entries_is_bounded_and_those_in_use_stay() {
    let (mut cache, now) = (cache(100, 1 << 20), Instant::now());
    cache.put(b"favourite", reply(300, 4), now);
    for number in 0..10_000_u32 {
        cache.put(&number.to_be_bytes(), reply(300, 4), now);
        assert!(cache.get(b"favourite", now).is_some());
        assert!(cache.len() <= 101, "{}", cache.len());
    }
}

#[test]
fn the_bytes_are_bounded_too() {
    let (mut cache, now) = (cache(1 << 20, 100_000), Instant::now());
    for number in 0..1000_u32 {
        cache.put(&number.to_be_bytes(), reply(300, 4000), now);
        assert!(cache.young.bytes + cache.old.bytes <= 100_000);
    }
    assert!(cache.len() > 10);
    cache.put(b"huge", reply(300, 60_000), now);
    assert!(cache.get(b"huge", now).is_none());
    // Taking everything out again leaves the count at zero.
    for number in 0..1000_u32 {
        cache.get(&number.to_be_bytes(), now + 3600 * SECOND);
    }
    assert_eq!((cache.len(), cache.young.bytes, cache.old.bytes), (0, 0, 0));
}

#[test]
fn a_newer_answer_replaces_an_older_one() {
    let (mut cache, now) = (cache(4, 1 << 20), Instant::now());
    cache.put(b"k", reply(30, 4), now);
    cache.put(b"1", reply(30, 4), now);
    cache.put(b"2", reply(30, 4), now);
    cache.put(b"k", reply(60, 4), now);
    assert!(cache.get(b"k", now + 45 * SECOND).is_some());
}
