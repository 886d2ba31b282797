//! What every store must do, as seen through the trait. A store's own tests call [`run`] with a way to make it empty.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::watch::Closed;
use super::{Batch, CommitError, Entry, KeyChange, Revision, Store, Txn};

type Fresh<'a> = &'a dyn Fn() -> Box<dyn Store>;

pub(super) fn run(fresh: Fresh<'_>) {
    starts_empty(&*fresh());
    puts_are_loaded_in_key_order(fresh());
    a_key_is_made_once(fresh());
    a_stale_revision_is_refused(fresh());
    a_removed_key_does_not_match_its_old_revision(fresh());
    a_refused_transaction_writes_nothing(fresh());
    writing_nothing_keeps_the_revision(fresh());
    a_watch_begins_with_everything(fresh());
    a_watch_tells_each_commit_once(fresh());
    two_watches_see_the_same(fresh());
    any_sequence_matches_the_plain_map(fresh);
}

fn put(store: &mut dyn Store, key: &str, value: &str) -> Revision {
    store.commit(&Txn::default().put(key, value.as_bytes())).expect("an unconditional put")
}

fn pairs(store: &dyn Store) -> Vec<(String, String, Revision)> {
    let entries = store.load().expect("load").entries;
    entries.iter().map(|entry| (entry.key.to_string(), text(entry), entry.revision)).collect()
}

fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.value).into_owned()
}

fn conflict(result: Result<Revision, CommitError>) -> (String, Option<Revision>) {
    match result {
        Err(CommitError::Conflict { key, found, .. }) => (key.to_string(), found),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

fn starts_empty(store: &dyn Store) {
    let snapshot = store.load().expect("load");
    assert!(snapshot.entries.is_empty());
}

fn puts_are_loaded_in_key_order(mut store: Box<dyn Store>) {
    let second = put(&mut *store, "b/2", "two");
    let first = put(&mut *store, "a/1", "one");
    assert!(first > second, "every commit raises the revision");
    assert_eq!(pairs(&*store), [("a/1".into(), "one".into(), first), ("b/2".into(), "two".into(), second)]);
    assert_eq!(store.load().expect("load").revision, first);
}

fn a_key_is_made_once(mut store: Box<dyn Store>) {
    let lease = Txn::default().expect_absent("lease/n/10.0.0.2").put("lease/n/10.0.0.2", &b"a"[..]);
    let revision = store.commit(&lease).expect("the first holder");
    assert_eq!(conflict(store.commit(&lease)), ("lease/n/10.0.0.2".into(), Some(revision)));
}

fn a_stale_revision_is_refused(mut store: Box<dyn Store>) {
    let old = put(&mut *store, "k", "1");
    let new = put(&mut *store, "k", "2");
    let replace = |revision| Txn::default().expect("k", revision).put("k", &b"3"[..]);
    assert_eq!(conflict(store.commit(&replace(old))), ("k".into(), Some(new)));
    store.commit(&replace(new)).expect("the current revision");
}

fn a_removed_key_does_not_match_its_old_revision(mut store: Box<dyn Store>) {
    let old = put(&mut *store, "k", "1");
    store.commit(&Txn::default().delete("k")).expect("delete");
    assert_eq!(conflict(store.commit(&Txn::default().expect("k", old).delete("k"))), ("k".into(), None));
    let again = put(&mut *store, "k", "1");
    assert!(again > old, "a key made again is a new key");
}

fn a_refused_transaction_writes_nothing(mut store: Box<dyn Store>) {
    put(&mut *store, "k", "1");
    let before = store.load().expect("load");
    conflict(store.commit(&Txn::default().put("other", &b"x"[..]).expect_absent("k").delete("k")));
    assert_eq!(store.load().expect("load"), before);
}

fn writing_nothing_keeps_the_revision(mut store: Box<dyn Store>) {
    let revision = put(&mut *store, "k", "1");
    assert_eq!(store.commit(&Txn::default().expect("k", revision)).expect("a check only"), revision);
    assert_eq!(store.commit(&Txn::default().delete("absent")).expect("nothing to delete"), revision);
}

fn a_watch_begins_with_everything(mut store: Box<dyn Store>) {
    put(&mut *store, "b", "2");
    let revision = put(&mut *store, "a", "1");
    let watch = store.watch().expect("watch");
    let first = watch.try_next().expect("open").expect("the initial load");
    assert_eq!(first.revision, revision);
    let keys: Vec<_> = first.changes.iter().map(key).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(watch.try_next(), Ok(None));
}

fn a_watch_tells_each_commit_once(mut store: Box<dyn Store>) {
    let watch = store.watch().expect("watch");
    assert!(watch.try_next().expect("open").expect("the initial load").changes.is_empty());
    let txn = Txn::default().put("a", &b"1"[..]).put("b", &b"2"[..]).delete("absent");
    let revision = store.commit(&txn).expect("commit");
    conflict(store.commit(&Txn::default().expect_absent("a").put("c", &b"3"[..])));
    store.commit(&Txn::default().delete("a")).expect("delete");

    let batch = watch.try_next().expect("open").expect("the first commit");
    assert_eq!(batch.revision, revision);
    assert_eq!(batch.changes.iter().map(key).collect::<Vec<_>>(), ["a", "b"]);
    let batch = watch.try_next().expect("open").expect("the second commit");
    assert_eq!(batch.changes, [KeyChange::Deleted { key: "a".into() }]);
    assert_eq!(watch.try_next(), Ok(None), "what was refused or changed nothing is not told");
}

fn two_watches_see_the_same(mut store: Box<dyn Store>) {
    let early = store.watch().expect("watch");
    put(&mut *store, "a", "1");
    let late = store.watch().expect("watch");
    put(&mut *store, "b", "2");
    assert_eq!(replay(&drain(&early)), replay(&drain(&late)));
}

fn any_sequence_matches_the_plain_map(fresh: Fresh<'_>) {
    let step = prop_oneof![
        (0..4_u8, any::<u8>()).prop_map(|(key, value)| Step::Put { key, value }),
        (0..4_u8).prop_map(|key| Step::Delete { key }),
        (0..4_u8, any::<u8>(), 0..3_u64).prop_map(|(key, value, age)| Step::Replace { key, value, age }),
        (0..4_u8, any::<u8>()).prop_map(|(key, value)| Step::Make { key, value }),
    ];
    let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
    let strategy = proptest::collection::vec(step, 0..24);
    runner.run(&strategy, |steps| follow(fresh(), &steps)).expect("the store follows the model");
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        value: u8,
    },
    Delete {
        key: u8,
    },
    /// Expects the revision the key had so many changes ago.
    Replace {
        key: u8,
        value: u8,
        age: u64,
    },
    Make {
        key: u8,
        value: u8,
    },
}

fn follow(mut store: Box<dyn Store>, steps: &[Step]) -> Result<(), TestCaseError> {
    let watch = store.watch().expect("watch");
    let mut plain: BTreeMap<String, (u8, Revision)> = BTreeMap::new();
    for step in steps {
        let (key, value, expected) = match *step {
            Step::Put { key, value } => (key, Some(value), None),
            Step::Delete { key } => (key, None, None),
            Step::Make { key, value } => (key, Some(value), Some(None)),
            Step::Replace { key, value, age } => {
                let current = plain.get(&format!("k/{key}")).map_or(0, |(_, revision)| *revision);
                (key, Some(value), Some(Some(current.saturating_sub(age))))
            }
        };
        let key = format!("k/{key}");
        let mut txn = Txn::default();
        txn = match expected {
            Some(Some(revision)) => txn.expect(&*key, revision),
            Some(None) => txn.expect_absent(&*key),
            None => txn,
        };
        txn = match value {
            Some(value) => txn.put(&*key, vec![value]),
            None => txn.delete(&*key),
        };
        let found = plain.get(&key).map(|(_, revision)| *revision);
        match (store.commit(&txn), expected.is_none_or(|expected| expected == found)) {
            (Ok(revision), true) => match value {
                Some(value) => drop(plain.insert(key, (value, revision))),
                None => drop(plain.remove(&key)),
            },
            (Err(CommitError::Conflict { found: told, .. }), false) => prop_assert_eq!(told, found),
            (result, _) => prop_assert!(false, "{:?} gave {:?}", step, result),
        }
    }
    let wanted: BTreeMap<_, _> =
        plain.into_iter().map(|(key, (value, revision))| (key, (vec![value], revision))).collect();
    let entries = store.load().expect("load").entries.into_iter();
    let loaded: BTreeMap<_, _> =
        entries.map(|entry| (entry.key.to_string(), (entry.value.to_vec(), entry.revision))).collect();
    prop_assert_eq!(&loaded, &wanted);
    prop_assert_eq!(&replay(&drain(&watch)), &wanted);
    Ok(())
}

fn key(change: &KeyChange) -> &str {
    match change {
        KeyChange::Put(entry) => &entry.key,
        KeyChange::Deleted { key } => key,
    }
}

fn drain(watch: &super::Watch) -> Vec<Batch> {
    std::iter::from_fn(|| watch.try_next().unwrap_or_else(|Closed| panic!("closed"))).collect()
}

/// What a reader of these batches believes the store holds.
fn replay(batches: &[Batch]) -> BTreeMap<String, (Vec<u8>, Revision)> {
    let mut map = BTreeMap::new();
    for change in batches.iter().flat_map(|batch| &batch.changes) {
        match change {
            KeyChange::Put(entry) => {
                map.insert(entry.key.to_string(), (entry.value.to_vec(), entry.revision));
            }
            KeyChange::Deleted { key } => {
                map.remove(&**key);
            }
        }
    }
    map
}
