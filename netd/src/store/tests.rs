//! The redb store: the shared suite, and what happens to its file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::redb::{Journal, StateFile};
use super::watch::Watchers;
use super::{
    Batch, Entry, Key, KeyChange, Record, RecordError, Records, Redb, Store, StoreError, Txn, encode,
    encode_lease, key_of, lease_key, left_key,
};
use crate::model::{Availability, Change, Driver, Member, Network, Node, Peer, Sandbox, Scope};
use crate::testing;

/// A store whose directory goes with it.
struct Temporary {
    store: Redb,
    _directory: TempDir,
}

impl Store for Temporary {
    fn load(&self) -> Result<super::Snapshot, StoreError> {
        self.store.load()
    }

    fn commit(&mut self, txn: &Txn) -> Result<super::Revision, super::CommitError> {
        self.store.commit(txn)
    }

    fn watch(&mut self) -> Result<super::Watch, StoreError> {
        self.store.watch()
    }
}

#[test]
fn redb_passes_the_suite() {
    super::suite::run(&|| {
        let directory = TempDir::new().expect("a directory");
        Box::new(Temporary { store: Redb::open(directory.path()).expect("open"), _directory: directory })
    });
}

#[test]
fn the_simulated_store_of_a_cluster_passes_the_suite() {
    super::suite::run(&|| {
        let sea = super::simulated::Sea::default();
        let end = sea.end();
        sea.open(end)
    });
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let directory = TempDir::new().unwrap();
    let mut store = Redb::open(directory.path()).unwrap();
    let first = store.commit(&Txn::default().put("a", &b"1"[..])).unwrap();
    let before = store.load().unwrap();
    drop(store);
    assert_eq!(fs::metadata(directory.path().join("journal")).unwrap().len(), 0, "all is in the state file");
    let mut store = Redb::open(directory.path()).unwrap();
    assert_eq!(store.load().unwrap(), before);
    assert_eq!(store.commit(&Txn::default().put("b", &b"2"[..])).unwrap(), first + 1);
}

#[test]
fn a_second_daemon_is_told_who_has_the_directory() {
    let directory = TempDir::new().unwrap();
    let _first = Redb::open(directory.path()).unwrap();
    let text = Redb::open(directory.path()).unwrap_err().to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(text.contains(&directory.path().display().to_string()), "{text}");
}

#[test]
fn a_crash_while_the_file_is_made_leaves_a_usable_directory() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("state.new"), b"half of it").unwrap();
    Redb::open(directory.path()).unwrap().commit(&Txn::default().put("a", &b"1"[..])).unwrap();
}

#[test]
fn a_newer_file_is_left_alone() {
    const META: ::redb::TableDefinition<'_, &str, u64> = ::redb::TableDefinition::new("meta");
    let directory = TempDir::new().unwrap();
    drop(Redb::open(directory.path()).unwrap());
    let database = ::redb::Database::open(state_file(directory.path())).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("format", 7).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = Redb::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 7, known: 1, .. }), "{error}");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = Redb::open(Path::new("/nonexistent/netd")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/netd"), "{error}");
}

fn state_file(directory: &Path) -> PathBuf {
    directory.join("state.redb")
}

/// A state file with some history, as it lies on disk after a crash (`clean` false) or a stop.
fn sample(clean: bool) -> (Vec<u8>, super::Snapshot) {
    let directory = TempDir::new().unwrap();
    let file = StateFile::open(directory.path()).unwrap();
    for number in 1..=40 {
        file.apply(&[put(&format!("sandbox/{number:04}"), number)]).unwrap();
    }
    let snapshot = file.load().unwrap();
    if clean {
        drop(file);
    }
    (fs::read(state_file(directory.path())).unwrap(), snapshot)
}

fn put(key: &str, revision: u64) -> Batch {
    entry(key, &[revision as u8; 300], revision)
}

/// Either the store is what it was at some commit, or the error says what to do. Never a panic, never a fresh start.
fn opens_whole_or_refuses(bytes: &[u8], snapshot: &super::Snapshot, what: &str) -> bool {
    let directory = TempDir::new().unwrap();
    fs::write(state_file(directory.path()), bytes).unwrap();
    match Redb::open(directory.path()) {
        Ok(mut store) => {
            let loaded = store.load().unwrap_or_else(|error| panic!("{what}: opened, then {error}"));
            let history = snapshot.entries.starts_with(&loaded.entries);
            assert!(history && loaded.revision >= 39, "{what}: another past at {}", loaded.revision);
            store.commit(&Txn::default().put("new", &b"1"[..])).unwrap();
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("mv '"), "{what}: no remedy in: {text}");
            let kept = fs::read(state_file(directory.path())).unwrap();
            assert!(!kept.is_empty() || bytes.is_empty(), "{what}: the evidence was removed");
            false
        }
    }
}

#[test]
fn a_file_cut_anywhere_recovers_or_refuses() {
    for clean in [true, false] {
        let (bytes, snapshot) = sample(clean);
        let cuts =
            (0..bytes.len()).step_by(bytes.len() / 48).chain([1, 63, 64, 320, 4095, 4096, bytes.len() - 1]);
        for cut in cuts {
            opens_whole_or_refuses(&bytes[..cut], &snapshot, &format!("cut at {cut}"));
        }
        assert!(opens_whole_or_refuses(&bytes, &snapshot, "uncut"));
    }
}

#[test]
fn a_file_with_any_byte_changed_recovers_or_refuses() {
    let (bytes, snapshot) = sample(true);
    for position in (0..512).step_by(3).chain((512..bytes.len()).step_by(4093)) {
        let mut broken = bytes.clone();
        broken[position] ^= 0x55;
        opens_whole_or_refuses(&broken, &snapshot, &format!("byte {position} changed"));
    }
}

#[test]
fn a_file_of_garbage_is_refused() {
    let (bytes, snapshot) = sample(true);
    let noise: Vec<u8> =
        (0..bytes.len() as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert!(!opens_whole_or_refuses(&noise, &snapshot, "noise"));
    let mut body = bytes.clone();
    body[512..].copy_from_slice(&noise[512..]);
    assert!(!opens_whole_or_refuses(&body, &snapshot, "noise behind the header"));
    assert!(!opens_whole_or_refuses(&vec![0; bytes.len()], &snapshot, "zeros"));
}

#[test]
fn a_reader_that_lags_is_cut_off_and_can_begin_again() {
    let mut watchers = Watchers::default();
    let watch = watchers.add(Batch { revision: 0, changes: Vec::new() });
    for revision in 1..=5000 {
        watchers.tell(&Batch { revision, changes: Vec::new() });
    }
    let mut last = None;
    let closed = loop {
        match watch.try_next() {
            Ok(Some(batch)) => last = Some(batch.revision),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(closed, "the watch ended at {last:?} and said nothing");
}

#[test]
fn what_a_killed_daemon_had_only_in_its_journal_is_taken_over() {
    let directory = TempDir::new().unwrap();
    let mut store = Redb::open(directory.path()).unwrap();
    let known = store.commit(&Txn::default().put("a", &b"1"[..])).unwrap();
    drop(store);
    let (mut journal, _) = Journal::open(directory.path()).unwrap();
    // What the state file has already, what it lacks, and what is behind a gap.
    for revision in [known, known + 1, known + 2, known + 9] {
        journal.append(&put(&format!("k/{revision}"), revision)).unwrap();
    }
    drop(journal);
    let mut store = Redb::open(directory.path()).unwrap();
    let snapshot = store.load().unwrap();
    let keys: Vec<_> = snapshot.entries.iter().map(|entry| &*entry.key).collect();
    assert_eq!(keys, ["a", "k/2", "k/3"]);
    assert_eq!(snapshot.revision, known + 2);
    assert_eq!(store.commit(&Txn::default().delete("a")).unwrap(), known + 3);
    drop(store);
    assert_eq!(Redb::open(directory.path()).unwrap().load().unwrap().revision, known + 3);
}

#[test]
fn putting_the_state_file_aside_begins_with_nothing() {
    let directory = TempDir::new().unwrap();
    Redb::open(directory.path()).unwrap().commit(&Txn::default().put("a", &b"1"[..])).unwrap();
    fs::rename(state_file(directory.path()), directory.path().join("state.redb.damaged")).unwrap();
    assert_eq!(Redb::open(directory.path()).unwrap().load().unwrap().entries, []);
}

#[test]
fn the_journal_does_not_grow_without_end() {
    let directory = TempDir::new().unwrap();
    let mut store = Redb::open(directory.path()).unwrap();
    for _ in 0..40 {
        store.commit(&Txn::default().put("big", vec![1; 100_000])).unwrap();
        let journal = fs::metadata(directory.path().join("journal")).unwrap().len();
        assert!(journal < (1 << 20) + 200_000, "{journal} bytes");
    }
}

fn sandbox(id: &str, name: &str) -> Sandbox {
    Sandbox { id: id.into(), ..testing::sandbox(name) }
}

fn entry(key: &str, value: &[u8], revision: u64) -> Batch {
    Batch {
        revision,
        changes: vec![KeyChange::Put(Entry { key: key.into(), value: value.into(), revision })],
    }
}

#[test]
fn records_come_back_as_changes_with_before_and_after() {
    let directory = TempDir::new().unwrap();
    let mut store = Redb::open(directory.path()).unwrap();
    let mut records = Records::default();
    let key = key_of::<Sandbox>("ab");
    let first = sandbox("ab", "web");
    let second = sandbox("ab", "shop");
    let watch = store.watch().unwrap();
    let revision = store
        .commit(
            &Txn::default()
                .expect_absent(Arc::clone(&key))
                .put(Arc::clone(&key), encode(&first).unwrap())
                .put(lease_key("n", "fd00::2".parse().unwrap()), encode_lease(first.id())),
        )
        .unwrap();
    store.commit(&Txn::default().put(Arc::clone(&key), encode(&second).unwrap())).unwrap();
    store.commit(&Txn::default().delete(Arc::clone(&key))).unwrap();

    let mut next = || records.apply(&watch.try_next().unwrap().unwrap()).unwrap();
    let (first, second) = (Arc::new(first), Arc::new(second));
    assert_eq!(next(), []);
    let change = |before: Option<&Arc<Sandbox>>, after: Option<&Arc<Sandbox>>| Change::Sandbox {
        before: before.cloned(),
        after: after.cloned(),
    };
    assert_eq!(next(), [change(None, Some(&first))]);
    assert_eq!(next(), [change(Some(&first), Some(&second))]);
    assert_eq!(next(), [change(Some(&second), None)]);
    assert_eq!(records.revision(Scope::Local), revision + 2);
    assert_eq!(records.revision_of(Scope::Local, &key), None);
    assert_eq!(records.revision_of(Scope::Local, "lease/n/fd00::2"), Some(revision));
}

#[test]
fn a_record_of_a_newer_netd_is_refused_by_name_and_changes_nothing() {
    let mut records = Records::default();
    let error = records.apply(&entry("sandbox/ab", br#"{"v":2,"record":{"anything":1}}"#, 1)).unwrap_err();
    assert!(matches!(error, RecordError::Newer { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("sandbox/ab"), "{error}");
    assert_eq!(records.revision(Scope::Local), 0);
    for garbage in [&b"{"[..], b"", b"null", b"{\"v\":1}", br#"{"v":1,"record":{"id":"ab"}}"#] {
        let error = records.apply(&entry("sandbox/ab", garbage, 1)).unwrap_err();
        assert!(matches!(error, RecordError::Malformed { .. }), "{error}");
    }
    let misplaced = encode(&sandbox("cd", "x")).unwrap();
    let error = records.apply(&entry("sandbox/ab", &misplaced, 1)).unwrap_err();
    assert!(matches!(error, RecordError::Misplaced { .. }), "{error}");
    assert_eq!(records.apply(&entry("thing/ab", b"of a later netd", 1)).unwrap(), []);
}

fn shared(changes: Vec<KeyChange>, revision: u64) -> Batch {
    Batch { revision, changes }
}

fn put_of<R: Record>(record: &R, revision: u64) -> KeyChange {
    let (key, value) = (key_of::<R>(record.id()), encode(record).unwrap());
    KeyChange::Put(Entry { key, value, revision })
}

fn overlay(name: &str) -> Network {
    Network {
        driver: Driver::Overlay { vni: 4096 },
        ..testing::network(name, &[("10.0.0.0/24", "10.0.0.1")])
    }
}

#[test]
fn what_another_version_wrote_into_the_clusters_store_keeps_nothing_else() {
    let mut records = Records::of("node1".into());
    let newer = Entry { key: "network/ab".into(), value: br#"{"v":9,"record":{}}"#[..].into(), revision: 1 };
    let unknown = Entry { key: "weather/ab".into(), value: b"rain"[..].into(), revision: 1 };
    let local = testing::network("local", &[("10.1.0.0/24", "10.1.0.1")]);
    let batch = vec![
        KeyChange::Put(newer.clone()),
        KeyChange::Put(unknown),
        put_of(&local, 1),
        put_of(&overlay("shop"), 1),
    ];
    assert_eq!(records.apply_shared(&shared(batch, 1), false).len(), 1);
    assert_eq!(records.model().networks.values().map(|network| &*network.name).collect::<Vec<_>>(), ["shop"]);
    let refused: Vec<_> = records.refused().values().cloned().collect();
    assert!(refused.len() == 2 && refused[0].contains("network/ab has form 9"), "{refused:?}");
    assert!(refused[1].contains("network/id-local"), "{refused:?}");
    records.apply_shared(&shared(vec![KeyChange::Deleted { key: newer.key }], 2), false);
    assert_eq!(records.refused().len(), 1, "what is gone is refused no more");
}

#[test]
fn a_record_that_became_unreadable_goes_on_as_it_was() {
    let mut records = Records::of("node1".into());
    let network = overlay("shop");
    records.apply_shared(&shared(vec![put_of(&network, 1)], 1), false);
    let key = key_of::<Network>(network.id());
    let newer = Entry { key: Arc::clone(&key), value: br#"{"v":9,"record":{}}"#[..].into(), revision: 2 };
    assert_eq!(records.apply_shared(&shared(vec![KeyChange::Put(newer)], 2), false), []);
    assert_eq!(records.model().networks.get(network.id()).map(|known| &**known), Some(&network));
    assert_eq!(
        records.revision_of(Scope::Shared, &key),
        Some(2),
        "and is replaced by nobody who cannot read it"
    );
}

/// A node that lives, with an endpoint.
fn alive(name: &str) -> (Member, Node, Peer) {
    let node = testing::node(name, [192, 0, 2, 1]);
    (testing::member(name, 1), node, testing::peer(&format!("of-{name}"), name, "net"))
}

fn deleted(key: Key) -> KeyChange {
    KeyChange::Deleted { key }
}

#[test]
fn a_node_that_is_missing_is_doubted_until_it_is_back_or_known_to_be_gone() {
    let mut records = Records::of("here".into());
    let nodes = ["here", "back", "away", "removed", "left"].map(alive);
    let all =
        nodes.iter().flat_map(|(member, node, peer)| [put_of(member, 1), put_of(node, 1), put_of(peer, 1)]);
    records.apply_shared(&shared(all.collect(), 1), false);
    let gone = nodes
        .iter()
        .flat_map(|(_, node, peer)| [deleted(key_of::<Node>(&node.name)), deleted(key_of::<Peer>(&peer.id))]);
    let mut batch: Vec<KeyChange> = gone.collect();
    let removed = Member { availability: Availability::Removed, ..nodes[3].0.clone() };
    batch.push(put_of(&removed, 2));
    batch.push(KeyChange::Put(Entry { key: left_key("left"), value: b"down"[..].into(), revision: 2 }));
    records.apply_shared(&shared(batch, 2), true);
    let known = |records: &Records| -> Vec<String> {
        let model = records.model();
        let peers = model.peers.values().map(|peer| format!("{}'s", peer.node));
        model.nodes.keys().map(ToString::to_string).chain(peers).collect()
    };
    assert_eq!(
        known(&records),
        ["away", "back", "away's", "back's"],
        "this one's own are what the store says"
    );
    assert!(!records.lives("away") && records.doubts());
    assert_eq!(
        records.revision_of(Scope::Shared, &key_of::<Node>("away")),
        None,
        "transactions go by the store"
    );
    // One is back, with what it has by now.
    let (_, node, _) = &nodes[1];
    records.apply_shared(&shared(vec![put_of(node, 3)], 3), true);
    assert!(records.lives("back"));
    let believed = records.believe();
    assert_eq!(known(&records), ["back"]);
    assert_eq!(believed.len(), 3, "the one that is not back, and both endpoints: {believed:?}");
    assert!(!records.doubts());
}

#[test]
fn a_node_that_goes_while_the_store_is_watched_is_gone_at_once() {
    let mut records = Records::of("here".into());
    let (member, node, peer) = alive("other");
    records.apply_shared(&shared(vec![put_of(&member, 1), put_of(&node, 1), put_of(&peer, 1)], 1), true);
    // An endpoint alone is what its node has said.
    let changes = records.apply_shared(&shared(vec![deleted(key_of::<Peer>(&peer.id))], 2), true);
    assert_eq!(changes.len(), 1);
    let changes = records.apply_shared(&shared(vec![deleted(key_of::<Node>("other"))], 3), false);
    assert_eq!(changes.len(), 1);
    assert!(records.model().nodes.is_empty() && !records.doubts());
}

#[test]
fn a_batch_with_everything_drops_what_it_lacks() {
    let mut records = Records::of("node1".into());
    let (first, second) = (overlay("first"), overlay("second"));
    records.apply_shared(&shared(vec![put_of(&first, 1), put_of(&second, 1)], 1), false);
    let changes = records.replace_shared(&shared(vec![put_of(&second, 1)], 7), false);
    let gone = Change::Network { before: Some(Arc::new(first)), after: None };
    assert_eq!(changes, [gone]);
    assert_eq!(records.revision(Scope::Shared), 7);
}
