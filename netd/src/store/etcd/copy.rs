//! The last known content of etcd, in a file of the state directory: what a node begins with when etcd is away as it
//! starts, and from where its watch goes on when etcd is there.
//!
//! The file is a whole: written under another name and renamed, with a checksum at its end. Whatever else is found
//! counts as no copy at all; etcd has everything.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::super::bytes::{put_bytes, take, take_bytes, take_u32, take_u64};
use super::super::{Entry, Key, Revision};
use super::mirror::Mirror;
use super::shared::Shared;

const FILE: &str = "cluster.cache";
const MAGIC: &[u8; 8] = b"netd/etc";
const FORM: u32 = 1;
const CHECKSUM: usize = 32;
/// Beyond what etcd itself keeps by default: some other file.
const FILE_LIMIT: u64 = 2 << 30;
/// Changes of this long are written together.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Bytes a second, on average: the file is written as a whole.
const RATE: usize = 256 << 10;

pub(super) struct Copy {
    path: PathBuf,
    /// The revision in the file.
    written: Option<Revision>,
    length: usize,
}

impl Copy {
    /// What the file says; nothing where there is none, or none that is whole.
    pub(super) fn open(directory: &Path) -> (Self, Mirror) {
        let path = directory.join(FILE);
        let read = || {
            if fs::metadata(&path)?.len() > FILE_LIMIT {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too big"));
            }
            decode(&fs::read(&path)?).map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause))
        };
        let mirror = match read() {
            Ok(mirror) => Some(mirror),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the copy of the cluster's records is not used");
                None
            }
        };
        let written = mirror.as_ref().map(|mirror| mirror.revision);
        (Self { path, written, length: 0 }, mirror.unwrap_or_default())
    }

    /// Follows the mirror, at a bounded rate, and away from the thread that keeps the lease alive.
    pub(super) async fn keep(&mut self, shared: &Shared) {
        loop {
            shared.dirty.notified().await;
            sleep(AT_LEAST + Duration::from_millis((self.length * 1000 / RATE) as u64)).await;
            let mirror = shared.lock().mirror.clone();
            let (path, revision) = (self.path.clone(), mirror.revision);
            let written = tokio::task::spawn_blocking(move || write(&path, &mirror)).await;
            self.note(revision, written.unwrap_or_else(|panic| Err(io::Error::other(panic))));
        }
    }

    /// At the end: what has come since.
    pub(super) fn finish(&mut self, mirror: &Mirror) {
        if mirror.cluster != 0 && self.written != Some(mirror.revision) {
            let written = write(&self.path, mirror);
            self.note(mirror.revision, written);
        }
    }

    fn note(&mut self, revision: Revision, written: io::Result<usize>) {
        match written {
            Ok(length) => (self.written, self.length) = (Some(revision), length),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "cannot write the copy of the cluster's records");
            }
        }
    }
}

fn write(path: &Path, mirror: &Mirror) -> io::Result<usize> {
    let bytes = encode(mirror);
    let unfinished = path.with_extension("new");
    // Nodes share secrets, too. One that a crash has left has whatever mode it was made with.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    Ok(bytes.len())
}

pub(crate) fn encode(mirror: &Mirror) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORM.to_le_bytes());
    bytes.extend(mirror.cluster.to_le_bytes());
    bytes.extend(mirror.revision.to_le_bytes());
    for Entry { key, value, revision } in mirror.entries.values() {
        put_bytes(&mut bytes, key.as_bytes());
        put_bytes(&mut bytes, value);
        bytes.extend(revision.to_le_bytes());
    }
    sealed(bytes)
}

/// What a file has in front, for what is behind it to be looked at.
#[cfg(any(test, fuzzing))]
pub(crate) fn framed(contents: &[u8]) -> Vec<u8> {
    sealed([&MAGIC[..], &FORM.to_le_bytes(), contents].concat())
}

/// With its checksum behind it.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = Sha256::digest(&bytes);
    bytes.extend(checksum);
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Mirror, &'static str> {
    let cut = bytes.len().checked_sub(CHECKSUM).ok_or("it is cut")?;
    let (mut body, checksum) = bytes.split_at(cut);
    let body = &mut body;
    if Sha256::digest(*body)[..] != *checksum {
        return Err("it is cut or changed");
    }
    if take(body, MAGIC.len()) != Some(MAGIC) {
        return Err("it is something else");
    }
    if take_u32(body) != Some(FORM as usize) {
        return Err("another netd has written it");
    }
    contents(body).ok_or("what it holds makes no sense")
}

fn contents(body: &mut &[u8]) -> Option<Mirror> {
    let mut mirror = Mirror { cluster: take_u64(body)?, revision: take_u64(body)?, ..Mirror::default() };
    while !body.is_empty() {
        let key: Key = str::from_utf8(take_bytes(body)?).ok()?.into();
        let (value, revision) = (take_bytes(body)?.into(), take_u64(body)?);
        if revision > mirror.revision {
            return None;
        }
        mirror.entries.insert(Key::clone(&key), Entry { key, value, revision });
    }
    Some(mirror)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    fn sample() -> Mirror {
        let entry = |number: u64| Entry {
            key: format!("endpoint/ü/{number}").into(),
            value: vec![number as u8; 40].into(),
            revision: number,
        };
        let mut mirror = Mirror::default();
        mirror.replace(0xfeed, 9, (1..=7).map(entry).collect());
        mirror
    }

    #[test]
    fn a_copy_cut_or_changed_at_any_byte_is_no_copy() {
        let bytes = encode(&sample());
        assert_eq!(decode(&bytes), Ok(sample()));
        for place in 0..bytes.len() {
            assert!(decode(&bytes[..place]).is_err(), "cut at {place}");
            let mut changed = bytes.clone();
            changed[place] ^= 0x41;
            assert!(decode(&changed).is_err(), "changed at {place}");
        }
    }

    #[test]
    fn a_copy_is_found_again_and_a_damaged_one_is_absent() {
        let directory = TempDir::new().expect("a directory");
        let (mut copy, mirror) = Copy::open(directory.path());
        assert_eq!(mirror, Mirror::default());
        copy.finish(&sample());
        assert_eq!(Copy::open(directory.path()).1, sample());
        let path = directory.path().join(FILE);
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "secrets are nobody else's to read");
        fs::write(&path, &fs::read(&path).expect("a file")[..60]).expect("it can be cut");
        assert_eq!(Copy::open(directory.path()).1, Mirror::default());
    }

    #[test]
    fn what_nobody_has_heard_of_is_not_written() {
        let directory = TempDir::new().expect("a directory");
        Copy::open(directory.path()).0.finish(&Mirror::default());
        assert!(!directory.path().join(FILE).exists());
    }
}
