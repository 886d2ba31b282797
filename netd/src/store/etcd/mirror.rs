//! What etcd holds for us, as far as its watch has told, and the batches that bring a reader from there to what it
//! holds by now. Pure.

use std::collections::BTreeMap;

use super::super::{Batch, CLUSTER, Entry, Key, KeyChange, Revision};

const OTHERS: &str = "etcd has the records of another cluster than this node belongs to";
const NOTHING: &str = "etcd has none of this cluster's records: its data was lost, or it is another etcd";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Whose revisions these are; 0 while none has been heard.
    pub cluster: u64,
    /// Everything up to here is in it.
    pub revision: Revision,
    pub entries: BTreeMap<Key, Entry>,
}

impl Mirror {
    /// All of it, for a reader that knows nothing.
    pub(super) fn everything(&self) -> Batch {
        let changes = self.entries.values().cloned().map(KeyChange::Put).collect();
        Batch { revision: self.revision, changes }
    }

    /// Whether the history of that cluster, which is at `newest` by now, goes on from here.
    pub(super) fn goes_on(&self, cluster: u64, newest: Revision) -> bool {
        // A cluster made from an old backup is behind what we have seen of it.
        self.cluster == cluster && (1..=newest).contains(&self.revision)
    }

    /// Why what somebody holds is not what this was read from, if it is not: by the cluster's id there.
    pub(super) fn is_foreign(&self, id: Option<&[u8]>) -> Option<&'static str> {
        let known = &self.entries.get(CLUSTER)?.value;
        match id {
            Some(id) if *id == **known => None,
            Some(_) => Some(OTHERS),
            None => Some(NOTHING),
        }
    }

    /// The same of what was changed.
    pub(super) fn turns_foreign(&self, changes: &[KeyChange]) -> Option<&'static str> {
        let change = changes.iter().find(|change| **change.key() == *CLUSTER)?;
        self.is_foreign(match change {
            KeyChange::Put(entry) => Some(&entry.value),
            KeyChange::Deleted { .. } => None,
        })
    }

    /// Takes over what a load has found. The batch is the difference: nobody has told of what went away in between.
    pub(super) fn replace(&mut self, cluster: u64, revision: Revision, loaded: Vec<Entry>) -> Option<Batch> {
        let entries: BTreeMap<Key, Entry> =
            loaded.into_iter().map(|entry| (Key::clone(&entry.key), entry)).collect();
        let gone = self.entries.keys().filter(|key| !entries.contains_key(*key));
        let deleted = gone.map(|key| KeyChange::Deleted { key: Key::clone(key) });
        let other = entries.values().filter(|entry| self.entries.get(&entry.key) != Some(entry));
        let changes: Vec<_> = deleted.chain(other.cloned().map(KeyChange::Put)).collect();
        *self = Self { cluster, revision, entries };
        (!changes.is_empty()).then_some(Batch { revision, changes })
    }

    /// Takes in what one commit has changed, unless it is known already.
    pub(super) fn apply(&mut self, revision: Revision, changes: Vec<KeyChange>) -> Option<Batch> {
        if revision <= self.revision {
            return None;
        }
        self.revision = revision;
        let changes: Vec<_> = changes.into_iter().filter(|change| self.take_in(change)).collect();
        (!changes.is_empty()).then_some(Batch { revision, changes })
    }

    /// Nothing of ours has happened up to there.
    pub(super) fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    fn take_in(&mut self, change: &KeyChange) -> bool {
        match change {
            KeyChange::Put(entry) => {
                self.entries.insert(Key::clone(&entry.key), entry.clone());
                true
            }
            KeyChange::Deleted { key } => self.entries.remove(key).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: u8, value: u8, revision: Revision) -> Entry {
        Entry { key: format!("k/{key}").into(), value: vec![value].into(), revision }
    }

    fn put(key: u8, revision: Revision) -> KeyChange {
        KeyChange::Put(entry(key, revision as u8, revision))
    }

    /// What a reader of these batches believes.
    fn follow(entries: &mut BTreeMap<Key, Entry>, batch: Option<Batch>) {
        for change in batch.into_iter().flat_map(|batch| batch.changes) {
            match change {
                KeyChange::Put(entry) => drop(entries.insert(Key::clone(&entry.key), entry)),
                KeyChange::Deleted { key } => {
                    assert!(entries.remove(&key).is_some(), "{key} went away twice");
                }
            }
        }
    }

    #[test]
    fn what_went_away_unseen_is_told_with_what_came() {
        let mut mirror = Mirror::default();
        mirror.replace(1, 5, vec![entry(1, 1, 2), entry(2, 2, 3)]);
        let batch = mirror.replace(1, 9, vec![entry(2, 2, 3), entry(3, 3, 8)]).expect("a difference");
        assert_eq!(batch.revision, 9);
        let deleted = KeyChange::Deleted { key: "k/1".into() };
        assert_eq!(batch.changes, [deleted, KeyChange::Put(entry(3, 3, 8))]);
        assert_eq!(mirror.replace(1, 10, vec![entry(2, 2, 3), entry(3, 3, 8)]), None);
        assert_eq!(mirror.revision, 10);
    }

    #[test]
    fn only_who_has_the_clusters_id_is_believed_once_it_is_known() {
        let mut mirror = Mirror::default();
        assert_eq!(mirror.is_foreign(None), None, "whoever knows nothing takes what there is");
        let id = |value: &[u8], revision| Entry { key: CLUSTER.into(), value: value.into(), revision };
        mirror.replace(1, 5, vec![id(b"one", 2), entry(2, 2, 3)]);
        assert_eq!(mirror.is_foreign(Some(b"one")), None);
        assert_eq!(mirror.is_foreign(Some(b"two")), Some(OTHERS));
        assert_eq!(mirror.is_foreign(None), Some(NOTHING));
        assert_eq!(mirror.turns_foreign(&[put(1, 6)]), None);
        assert_eq!(mirror.turns_foreign(&[KeyChange::Put(id(b"one", 6))]), None);
        assert_eq!(mirror.turns_foreign(&[put(1, 6), KeyChange::Put(id(b"two", 6))]), Some(OTHERS));
        assert_eq!(mirror.turns_foreign(&[KeyChange::Deleted { key: CLUSTER.into() }]), Some(NOTHING));
    }

    #[test]
    fn a_commit_is_taken_in_once() {
        let mut mirror = Mirror::default();
        assert!(mirror.apply(3, vec![put(1, 3)]).is_some());
        assert_eq!(mirror.apply(3, vec![put(1, 3)]), None);
        mirror.advance(7);
        assert_eq!(mirror.apply(6, vec![put(1, 6)]), None);
        assert_eq!(
            mirror.apply(8, vec![KeyChange::Deleted { key: "k/9".into() }]),
            None,
            "of what is not there"
        );
        assert_eq!(mirror.revision, 8);
    }

    #[test]
    fn the_history_goes_on_only_where_it_is_the_same_and_not_behind() {
        let mut mirror = Mirror::default();
        assert!(!mirror.goes_on(0, 5), "nothing has been heard yet");
        mirror.replace(1, 5, Vec::new());
        assert!(mirror.goes_on(1, 5) && mirror.goes_on(1, 6));
        assert!(!mirror.goes_on(2, 6) && !mirror.goes_on(1, 4));
    }

    proptest! {
        /// However loads and commits come, a reader ends with what the last of them says.
        #[test]
        fn a_reader_of_the_batches_holds_what_the_mirror_holds(
            steps in prop::collection::vec((any::<bool>(), prop::collection::vec((0..6_u8, any::<bool>()), 0..6)), 0..12)
        ) {
            let (mut mirror, mut reader) = (Mirror::default(), BTreeMap::new());
            for (number, (load, keys)) in steps.into_iter().enumerate() {
                let revision = number as Revision + 1;
                let batch = if load {
                    let entries = keys.into_iter().map(|(key, old)| entry(key, key, if old { 1 } else { revision }));
                    mirror.replace(1, revision, entries.collect())
                } else {
                    let change = |(key, gone): (u8, bool)| match gone {
                        true => KeyChange::Deleted { key: format!("k/{key}").into() },
                        false => put(key, revision),
                    };
                    mirror.apply(revision, keys.into_iter().map(change).collect())
                };
                follow(&mut reader, batch);
                prop_assert_eq!(&reader, &mirror.entries);
            }
        }
    }
}
