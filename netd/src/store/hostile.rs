//! The doors that bytes from a disk come in through, as functions of bytes alone: the journal, the state file, and the
//! records in them. A disk, a power cut or somebody's editor may have made anything of them. Fuzzing and the property
//! tests walk the same way in.

mod shared;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::etcd::{decode_copy, encode_copy, framed_copy};
use super::redb::{StateFile, encode as entry_of, entries, sealed};
use super::{Batch, Entry, KeyChange, Record, Records, Redb, Store as _, StoreError, Txn, encode};
use crate::ipam::Leases;
use crate::model::{Change, Model, Network, Sandbox};
use crate::ports::Ports;
use crate::resolvconf::{self, HostConf};
use crate::tables::Projection;
use crate::{firewall, hosts};
pub use shared::shared_record;

/// The id of the records that [`record`] reads.
const ID: &str = "ab";

/// Treats `bytes` as a journal, and as the body of a journal's only entry: what is read means the same when it is
/// written again.
pub fn journal(bytes: &[u8]) {
    for bytes in [bytes, &sealed(bytes)] {
        for batch in entries(bytes) {
            assert_eq!(entries(&entry_of(&batch)), [batch]);
        }
    }
}

/// Treats `bytes` as the file of the cluster's last known records, and as what stands in one whose checksum is right.
pub fn copy(bytes: &[u8]) {
    for bytes in [bytes, &framed_copy(bytes)] {
        if let Ok(mirror) = decode_copy(bytes) {
            assert_eq!(decode_copy(&encode_copy(&mirror)), Ok(mirror));
        }
    }
}

/// Opens a store on a state file made of `input`: with 0 first, the rest as it is; otherwise a sound file with the
/// bytes changed that the rest names, four for the place and one for the value. Either the store opens, can be read and
/// written, or the error says what to do. `directory` exists and is empty; it is left empty.
pub fn state_file(directory: &Path, input: &[u8]) {
    let Some((&how, rest)) = input.split_first() else { return };
    let bytes = if how == 0 { rest.to_vec() } else { changed(sample(directory), rest) };
    let path = StateFile::path_in(directory);
    fs::write(&path, &bytes).expect("the state file can be written");
    match Redb::open(directory) {
        Ok(mut store) => {
            let loaded = store.load().expect("what opens can be read");
            assert!(loaded.entries.iter().all(|entry| entry.revision <= loaded.revision), "{loaded:?}");
            let revision =
                store.commit(&Txn::default().put("new", &b"1"[..])).expect("what opens can be written");
            drop(store);
            let again = Redb::open(directory).expect("what was written can be opened").load();
            assert_eq!(again.expect("and read").revision, revision);
        }
        Err(StoreError::Damaged { .. } | StoreError::Newer { .. }) => {
            assert_eq!(fs::read(&path).expect("the evidence is kept").is_empty(), bytes.is_empty());
        }
        Err(error) => panic!("an error without a remedy: {error:?}"),
    }
    for left in fs::read_dir(directory).expect("the directory can be listed").flatten() {
        fs::remove_file(left.path()).expect("a file of the directory can be removed");
    }
}

/// A sound file with some records, as it lies on the disk.
fn sample(directory: &Path) -> Vec<u8> {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let file = StateFile::open(directory).expect("a fresh file");
        for revision in 1..=9 {
            let (key, value) = (format!("sandbox/{revision}").into(), [revision as u8; 300][..].into());
            let change = KeyChange::Put(Entry { key, value, revision });
            file.apply(&[Batch { revision, changes: vec![change] }]).expect("a record can be written");
        }
        drop(file);
        fs::read(StateFile::path_in(directory)).expect("the file can be read")
    };
    SAMPLE.get_or_init(make).clone()
}

fn changed(mut bytes: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(5) {
        let place = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize % bytes.len();
        bytes[place] = change[4];
    }
    bytes
}

/// Reads `bytes` as the record of a network, and as that of a sandbox. Whatever is believed can be written and read
/// again, and everything that is derived from records can be derived from it.
pub fn record(bytes: &[u8]) {
    believe::<Network>(bytes, |model| model.networks.get(ID).map(|network| encode(&**network)));
    believe::<Sandbox>(bytes, |model| model.sandboxes.get(ID).map(|sandbox| encode(&**sandbox)));
}

type Encoded = Result<super::Value, super::RecordError>;

fn believe<R: Record>(bytes: &[u8], encoded: impl Fn(&Model) -> Option<Encoded>) {
    let read = |value: &[u8]| {
        let key = format!("{}/{ID}", R::PREFIX).into();
        let put = KeyChange::Put(Entry { key, value: value.into(), revision: 1 });
        let mut records = Records::default();
        let changes = records.apply(&Batch { revision: 1, changes: vec![put] }).ok()?;
        Some((records, changes))
    };
    let Some((records, changes)) = read(bytes) else { return };
    let written =
        encoded(records.model()).expect("it is in the model").expect("what was read can be written");
    let (again, _) = read(&written).expect("what was written can be read");
    assert_eq!(again.model(), records.model());
    derive(records.model(), &changes);
}

/// All that the daemon makes of its records when it starts.
fn derive(model: &Model, changes: &[Change]) {
    let mut projection = Projection::default();
    projection.apply(changes);
    projection.whole();
    firewall::render(model, None);
    firewall::guard(model, &firewall::Elements::default());
    Ports::rebuild(model);
    let sandboxes = || model.sandboxes.values().map(|sandbox| &**sandbox);
    for network in model.networks.values() {
        Leases::rebuild(network, sandboxes(), model.services.values().map(|service| &**service));
    }
    for sandbox in sandboxes() {
        hosts::render(sandbox, model);
        resolvconf::render(sandbox, model, &HostConf::default());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::testing;

    /// Bytes that are mostly those, in places overwritten, taken out or added to.
    pub(super) fn near(sound: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
        let edit = (any::<prop::sample::Index>(), 0..3_usize, prop::collection::vec(any::<u8>(), 0..4));
        prop::collection::vec(edit, 0..4).prop_map(move |edits| {
            let mut bytes = sound.clone();
            for (place, out, new) in edits {
                let start = place.index(bytes.len() + 1);
                let end = (start + out).min(bytes.len());
                bytes.splice(start..end, new);
            }
            bytes
        })
    }

    fn sound_journal() -> Vec<u8> {
        let put = |key: &str| Entry { key: key.into(), value: b"value"[..].into(), revision: 7 };
        let changes = vec![KeyChange::Put(put("a")), KeyChange::Deleted { key: "b".into() }];
        entry_of(&Batch { revision: 7, changes })
    }

    fn sound_copy() -> Vec<u8> {
        // A cluster, a revision, and one entry.
        let [cluster, revision, written] = [7_u64, 9, 5].map(u64::to_le_bytes);
        framed_copy(&[&cluster[..], &revision, &[1, 0, 0, 0], b"a", &[2, 0, 0, 0], b"vv", &written].concat())
    }

    /// With numbers in places where one digit more or less matters.
    fn sound_records() -> [Vec<u8>; 2] {
        let network = testing::network("app", &[("10.9.0.0/30", "10.9.0.1"), ("fd00::/126", "fd00::1")]);
        let mut sandbox = testing::sandbox("web");
        sandbox.endpoints.push(testing::endpoint_at(ID, &["10.9.0.2", "fd00::2"]));
        sandbox.publishes.push(testing::publish(crate::model::Protocol::Tcp, "::", 65530, 65530, 5));
        [
            encode(&Network { id: Arc::from(ID), ..network }).expect("a network").to_vec(),
            encode(&Sandbox { id: Arc::from(ID), ..sandbox }).expect("a sandbox").to_vec(),
        ]
    }

    proptest! {
        #[test]
        fn no_journal_does_harm(near in near(sound_journal()), body in near(sound_journal()[12..].to_vec()), raw: Vec<u8>) {
            journal(&near);
            journal(&body);
            journal(&raw);
        }

        #[test]
        fn no_copy_does_harm(near in near(sound_copy()), contents in near(sound_copy()[12..].to_vec()), raw: Vec<u8>) {
            copy(&near);
            copy(&contents);
            copy(&contents[..contents.len().saturating_sub(32)]);
            copy(&raw);
        }

        #[test]
        fn no_record_does_harm(
            network in near(sound_records()[0].clone()), sandbox in near(sound_records()[1].clone()), raw: Vec<u8>,
        ) {
            record(&network);
            record(&sandbox);
            record(&raw);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn no_state_file_does_harm(how: u8, input: Vec<u8>) {
            let directory = TempDir::new().expect("a directory");
            state_file(directory.path(), &[&[how][..], &input].concat());
        }
    }

    #[test]
    fn what_the_doors_are_tried_with_passes_them() {
        assert_eq!(entries(&sound_journal()).len(), 1);
        let mirror = decode_copy(&sound_copy()).expect("a sound copy");
        assert_eq!((mirror.revision, mirror.entries.len()), (9, 1));
        let [network, sandbox] = sound_records();
        assert_eq!(read_model(Network::PREFIX, &network).networks.len(), 1);
        assert_eq!(read_model(Sandbox::PREFIX, &sandbox).sandboxes.len(), 1);
        let directory = TempDir::new().expect("a directory");
        let sample = sample(directory.path());
        fs::write(StateFile::path_in(directory.path()), sample).expect("the state file can be written");
        assert_eq!(Redb::open(directory.path()).expect("a sound file").load().expect("load").revision, 9);
    }

    fn read_model(prefix: &str, value: &[u8]) -> Model {
        let put = Entry { key: format!("{prefix}/{ID}").into(), value: value.into(), revision: 1 };
        let mut records = Records::default();
        records.apply(&Batch { revision: 1, changes: vec![KeyChange::Put(put)] }).expect("a sound record");
        records.model().clone()
    }
}
