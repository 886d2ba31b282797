//! Brings the mirror to what etcd holds, and keeps it there: a load at one revision, then the watch from the next.
//!
//! After an interruption the watch goes on where it stopped. Where etcd has forgotten that place (compaction), or is
//! another cluster than it was, everything is loaded again and the readers get the difference.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::super::{CLUSTER, Entry, Key, KeyChange, Revision};
use super::client::{Client, Failure, answer};
use super::shared::Shared;
use super::wake::Waker;
use super::wire::{
    Event, Header, KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, WatchCreate, WatchRequest,
    WatchResponse,
};
use super::{PREFIX, after_prefix, prefixed, revision, stripped};

/// Keys asked for at once; fewer where their values are big.
const PAGE: i64 = 512;
/// Events of one response that came in pieces. One transaction is bounded far below by etcd itself.
const MOST_EVENTS: usize = 1 << 18;

/// Keys of this kind are no records and nobody's but this file's.
const MARK: &str = "mark/";

/// Everything, as of one revision.
#[derive(Debug)]
pub(super) struct Loaded {
    pub cluster: u64,
    pub revision: Revision,
    pub entries: Vec<Entry>,
}

/// A watch that has begun.
pub(super) struct Following {
    responses: Streaming<WatchResponse>,
    /// Keeps the question open; etcd ends the watch when it closes.
    _open: mpsc::Sender<WatchRequest>,
    /// Events of a response whose other pieces are still to come.
    pieces: Vec<Event>,
}

/// Brings the mirror to where etcd is by now, and begins the watch from there. When it returns,
/// the mirror has all that was there before, what the end of an earlier lease took away among it.
pub(super) async fn begin(
    client: &mut Client,
    shared: &Shared,
    waker: &Waker,
    header: &Header,
    lease: i64,
) -> Result<Following, Failure> {
    let goes_on = shared.lock().mirror.goes_on(header.cluster_id, revision(header.revision));
    if !goes_on {
        reload(client, shared, waker).await?;
        return open(client, shared).await;
    }
    let mut following = open(client, shared).await?;
    // The watch tells in order: with our mark it has told all that came before.
    let mark = match mark(client, lease).await {
        Err(Failure::Refused(cause)) => {
            // Full, as a rule: etcd can still be read.
            tracing::warn!(cause, "etcd takes no writes");
            reload(client, shared, waker).await?;
            return open(client, shared).await;
        }
        mark => mark?,
    };
    let patience = client.timeout;
    let catching_up = async {
        while shared.lock().mirror.revision < mark {
            step(&mut following, client, shared, waker).await?;
        }
        Ok(())
    };
    match timeout(patience, catching_up).await {
        Ok(Ok(())) => Ok(following),
        // It was somebody else's for a while: what happened to its keys then was no commit of this cluster's.
        Ok(Err(Failure::Foreign(_))) => {
            reload(client, shared, waker).await?;
            open(client, shared).await
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::Lost(format!("the watch has not caught up within {patience:?}"))),
    }
}

/// Until the watch ends; returns why.
pub(super) async fn follow(
    mut following: Following,
    client: &mut Client,
    shared: &Shared,
    waker: &Waker,
) -> Failure {
    loop {
        if let Err(failure) = step(&mut following, client, shared, waker).await {
            return failure;
        }
    }
}

/// Takes in one response.
async fn step(
    following: &mut Following,
    client: &mut Client,
    shared: &Shared,
    waker: &Waker,
) -> Result<(), Failure> {
    let response = answer(&mut following.responses).await?;
    if response.compact_revision != 0 {
        tracing::info!(up_to = response.compact_revision, "etcd has forgotten where we were: loading all");
        reload(client, shared, waker).await?;
        *following = open(client, shared).await?;
        return Ok(());
    }
    if response.canceled {
        return Err(Failure::Lost(format!("etcd has ended the watch: {}", response.cancel_reason)));
    }
    take_in(response, &mut following.pieces, shared, waker)
}

fn take_in(
    response: WatchResponse,
    pieces: &mut Vec<Event>,
    shared: &Shared,
    waker: &Waker,
) -> Result<(), Failure> {
    let nothing = response.events.is_empty() && pieces.is_empty() && !response.created;
    pieces.extend(response.events);
    if pieces.len() > MOST_EVENTS {
        return Err(Failure::Lost(format!("more than {MOST_EVENTS} events in one response of the watch")));
    }
    if response.fragment {
        return Ok(());
    }
    let commits = commits(std::mem::take(pieces))?;
    let changed = commits.iter().find_map(|(_, changes)| shared.lock().mirror.turns_foreign(changes));
    if let Some(why) = changed {
        return Err(Failure::Foreign(why));
    }
    let mut told = false;
    shared.note(|state| {
        if let (true, Some(header)) = (nothing, &response.header) {
            state.mirror.advance(revision(header.revision));
        }
        for (revision, changes) in commits {
            told |= state.apply(revision, changes);
        }
    });
    if told {
        waker.wake();
    }
    Ok(())
}

/// Writes something of no meaning of its own, which goes with the lease.
async fn mark(client: &mut Client, lease: i64) -> Result<Revision, Failure> {
    let put = PutRequest { key: prefixed(&format!("{MARK}{lease:x}")), value: Vec::new(), lease };
    let done: PutResponse = client.call("/etcdserverpb.KV/Put", put).await?;
    Ok(revision(done.header.map_or(0, |header| header.revision)))
}

/// What each revision has changed, in their order.
fn commits(events: Vec<Event>) -> Result<Vec<(Revision, Vec<KeyChange>)>, Failure> {
    let mut commits: Vec<(Revision, Vec<KeyChange>)> = Vec::new();
    for event in events {
        let Event { kind, kv: Some(kv) } = event else {
            return Err(Failure::Lost("an event without a key".into()));
        };
        let at = revision(kv.mod_revision);
        let change = match kind {
            Event::PUT => entry(kv).map(KeyChange::Put),
            Event::DELETE => own(&kv.key).map(|key| KeyChange::Deleted { key }),
            other => return Err(Failure::Lost(format!("an event of the unknown kind {other}"))),
        };
        match commits.last_mut() {
            Some((last, changes)) if *last == at => changes.extend(change),
            _ => commits.push((at, change.into_iter().collect())),
        }
    }
    Ok(commits)
}

async fn reload(client: &mut Client, shared: &Shared, waker: &Waker) -> Result<(), Failure> {
    let loaded = load(client).await?;
    let id = loaded.entries.iter().find(|entry| *entry.key == *CLUSTER).map(|entry| &*entry.value);
    if let Some(why) = shared.lock().mirror.is_foreign(id) {
        return Err(Failure::Foreign(why));
    }
    let mut told = false;
    shared.note(|state| told = state.replace(loaded));
    if told {
        waker.wake();
    }
    Ok(())
}

/// Page by page, all as of the revision of the first.
pub(super) async fn load(client: &mut Client) -> Result<Loaded, Failure> {
    let (mut key, mut limit) = (PREFIX.as_bytes().to_vec(), PAGE);
    let (mut at, mut cluster, mut entries) = (0, 0, Vec::new());
    loop {
        let range = RangeRequest {
            key: key.clone(),
            range_end: after_prefix(),
            limit,
            revision: at,
            ..Default::default()
        };
        let page: RangeResponse = match client.call("/etcdserverpb.KV/Range", range).await {
            Err(Failure::TooBig(_)) if limit > 1 => {
                limit = (limit / 4).max(1);
                continue;
            }
            page => page?,
        };
        if let (0, Some(header)) = (at, &page.header) {
            (at, cluster) = (header.revision, header.cluster_id);
        }
        match page.kvs.last() {
            Some(last) if page.more => key = [&last.key[..], &[0]].concat(),
            _ => {
                entries.extend(page.kvs.into_iter().filter_map(entry));
                return Ok(Loaded { cluster, revision: revision(at), entries });
            }
        }
        entries.extend(page.kvs.into_iter().filter_map(entry));
    }
}

/// None for marks, and for what somebody else has put among our keys.
fn entry(kv: KeyValue) -> Option<Entry> {
    let key = own(&kv.key)?;
    Some(Entry { key, value: kv.value.into(), revision: revision(kv.mod_revision) })
}

fn own(key: &[u8]) -> Option<Key> {
    stripped(key).filter(|key| !key.starts_with(MARK))
}

async fn open(client: &mut Client, shared: &Shared) -> Result<Following, Failure> {
    let next = shared.lock().mirror.revision + 1;
    let create = WatchCreate {
        key: PREFIX.into(),
        range_end: after_prefix(),
        start_revision: i64::try_from(next).unwrap_or(i64::MAX),
        progress_notify: true,
        fragment: true,
    };
    let (sender, questions) = mpsc::channel(1);
    // The channel is empty and its other end is in scope.
    let _ = sender.try_send(WatchRequest { create: Some(create) });
    let patience: Duration = client.timeout;
    let mut responses: Streaming<WatchResponse> =
        client.stream("/etcdserverpb.Watch/Watch", ReceiverStream::new(questions)).await?;
    let first = match timeout(patience, answer(&mut responses)).await {
        Ok(first) => first?,
        Err(_) => return Err(Failure::Lost(format!("no watch within {patience:?}"))),
    };
    match first.created && !first.canceled {
        true => Ok(Following { responses, _open: sender, pieces: Vec::new() }),
        false => Err(Failure::Lost(format!("etcd refuses the watch: {}", first.cancel_reason))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: i32, key: &str, revision: i64) -> Event {
        let kv =
            KeyValue { key: format!("{PREFIX}{key}").into(), mod_revision: revision, value: b"v".to_vec() };
        Event { kind, kv: Some(kv) }
    }

    #[test]
    fn what_one_revision_has_changed_stays_together() {
        let events = vec![event(Event::PUT, "a", 5), event(Event::DELETE, "b", 5), event(Event::PUT, "a", 6)];
        let commits = commits(events).expect("commits");
        let shape: Vec<_> = commits.iter().map(|(revision, changes)| (*revision, changes.len())).collect();
        assert_eq!(shape, [(5, 2), (6, 1)]);
        assert_eq!(commits[0].1[1], KeyChange::Deleted { key: "b".into() });
    }

    #[test]
    fn keys_of_others_are_passed_by_and_unknown_kinds_are_not() {
        let mut foreign = event(Event::PUT, "", 5);
        foreign.kv.as_mut().expect("a key").key = vec![0xff, 0xfe];
        assert_eq!(commits(vec![foreign]).expect("commits"), [(5, Vec::new())]);
        assert!(commits(vec![event(7, "a", 5)]).is_err());
    }
}
