//! The doors that bytes from a disk come in through, as functions of bytes alone: the journal, the state file, and the
//! records in them. A disk, a power cut or somebody's editor may have made anything of them. Fuzzing and the property
//! tests walk the same way in.

mod shared;
pub mod sound;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use super::etcd::{decode_copy, encode_copy, framed_copy};
use super::redb::{StateFile, encode as entry_of, entries, sealed};
use super::{Batch, Entry, KeyChange, Record, Records, Redb, Store as _, StoreError, Txn, encode};
use crate::ipam::Leases;
use crate::model::{AddressPool, Change, Findings, Model, Network, PoolAddress, Sandbox, Service};
use crate::ports::Ports;
use crate::resolvconf::{self, HostConf};
use crate::tables::Projection;
use crate::{firewall, hosts};
pub use shared::shared_record;

/// The id of the records that [`record`] reads.
const ID: &str = "ab";
/// Of a pool with that id.
const ADDRESS: &str = "10.9.0.2";

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

/// Reads `bytes` as each kind of record that a node keeps for itself. Whatever is believed can be written and read again,
/// and everything that is derived from records can be derived from it.
pub fn record(bytes: &[u8]) {
    believe::<Network>(bytes, ID, |model| model.networks.get(ID).map(|network| encode(&**network)));
    believe::<Sandbox>(bytes, ID, |model| model.sandboxes.get(ID).map(|sandbox| encode(&**sandbox)));
    believe::<Service>(bytes, ID, |model| model.services.get(ID).map(|service| encode(&**service)));
    believe::<Findings>(bytes, ID, |model| model.findings.get(ID).map(|findings| encode(&**findings)));
    believe::<AddressPool>(bytes, ID, |model| model.pools.get(ID).map(|pool| encode(&**pool)));
    believe::<PoolAddress>(bytes, &format!("{ID}/{ADDRESS}"), |model| {
        let address = model.pool_addresses.get(ID)?.values().next();
        address.map(|address| encode(&**address))
    });
}

type Encoded = Result<super::Value, super::RecordError>;

fn believe<R: Record>(bytes: &[u8], id: &str, encoded: impl Fn(&Model) -> Option<Encoded>) {
    let read = |value: &[u8]| {
        let key = super::key_of::<R>(id);
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
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

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

    /// One of those.
    pub(super) fn near_any(sound: fn() -> Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        any::<prop::sample::Index>().prop_flat_map(move |which| near(which.get(&sound()).clone()))
    }

    proptest! {
        #[test]
        fn no_journal_does_harm(near in near_any(sound::journals), raw: Vec<u8>) {
            journal(&near);
            journal(&raw);
        }

        #[test]
        fn no_copy_does_harm(near in near_any(sound::copies), raw: Vec<u8>) {
            copy(&near);
            copy(&raw);
        }

        #[test]
        fn no_record_does_harm(near in near_any(sound::records), raw: Vec<u8>) {
            record(&near);
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
        let [journal, body] = &sound::journals()[..] else { panic!("a journal and the body of an entry") };
        assert_eq!((entries(journal).len(), entries(&sealed(body)).len()), (2, 1));
        for copy in sound::copies() {
            let mirror = decode_copy(&copy).or_else(|_| decode_copy(&framed_copy(&copy)));
            assert_eq!(mirror.map(|mirror| mirror.revision), Ok(9));
        }
        assert!(sound::records().iter().all(|record| kinds_of(record) == 1), "each is of one kind");
        let directory = TempDir::new().expect("a directory");
        let sample = sample(directory.path());
        fs::write(StateFile::path_in(directory.path()), sample).expect("the state file can be written");
        assert_eq!(Redb::open(directory.path()).expect("a sound file").load().expect("load").revision, 9);
    }

    /// As how many kinds it is believed.
    fn kinds_of(record: &[u8]) -> usize {
        let is = |key: String| {
            let put = Entry { key: key.into(), value: record.into(), revision: 1 };
            Records::default().apply(&Batch { revision: 1, changes: vec![KeyChange::Put(put)] }).is_ok()
        };
        let kinds =
            [Network::PREFIX, Sandbox::PREFIX, Service::PREFIX, Findings::PREFIX, AddressPool::PREFIX];
        let keys = kinds.map(|prefix| format!("{prefix}/{ID}"));
        let address = format!("{}/{ID}/{ADDRESS}", PoolAddress::PREFIX);
        keys.into_iter().chain([address]).filter(|key| is(key.clone())).count()
    }
}
