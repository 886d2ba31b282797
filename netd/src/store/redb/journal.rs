//! Commits that may not be in the state file yet, in a file of their own. An entry is written with one call and
//! without waiting for the disk: it outlives this process at once, and a power cut may take the last ones.
//!
//! An entry is its length, a checksum, and the batch. Reading ends at the first one that is not whole, which is what a
//! cut leaves; entries that the state file has already are harmless, their revision tells.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::super::bytes::{put_bytes, take, take_bytes, take_u32, take_u64};
use super::super::{Batch, Entry, Key, KeyChange, StoreError};

const FILE: &str = "journal";
const CHECKSUM: usize = 8;
/// More than a journal ever has: it begins anew after a megabyte, and no commit has a hundred.
const LONGEST: u64 = 128 << 20;

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    length: u64,
}

impl Journal {
    /// The journal, and every whole entry it has.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Vec<Batch>), StoreError> {
        let path = directory.join(FILE);
        let read = || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut bytes = Vec::new();
            (&file).take(LONGEST).read_to_end(&mut bytes)?;
            Ok((Self { file, length: bytes.len() as u64 }, entries(&bytes)))
        };
        read().map_err(|source| StoreError::Io { deed: "open the journal", path: path.clone(), source })
    }

    /// At the end of what is known to be whole: an entry that failed half-way is overwritten by the next.
    pub(crate) fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let entry = encode(batch);
        self.file.write_all_at(&entry, self.length)?;
        self.length += entry.len() as u64;
        Ok(())
    }

    /// Forgets everything; the state file has it.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.length = 0;
        Ok(())
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

pub(crate) fn encode(batch: &Batch) -> Vec<u8> {
    let mut body = batch.revision.to_le_bytes().to_vec();
    for change in &batch.changes {
        let (key, value) = match change {
            KeyChange::Put(entry) => (&entry.key, Some(&entry.value)),
            KeyChange::Deleted { key } => (key, None),
        };
        body.push(u8::from(value.is_some()));
        put_bytes(&mut body, key.as_bytes());
        if let Some(value) = value {
            put_bytes(&mut body, value);
        }
    }
    sealed(&body)
}

/// The body behind its length and checksum.
pub(crate) fn sealed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], &checksum(body), body].concat()
}

pub(crate) fn entries(mut bytes: &[u8]) -> Vec<Batch> {
    let mut batches = Vec::new();
    while let Some(batch) = take_entry(&mut bytes) {
        batches.push(batch);
    }
    batches
}

fn take_entry(bytes: &mut &[u8]) -> Option<Batch> {
    let length = take_u32(bytes)?;
    let expected = take(bytes, CHECKSUM)?;
    let mut body = take(bytes, length)?;
    if checksum(body) != expected {
        return None;
    }
    let body = &mut body;
    let revision = take_u64(body)?;
    let mut changes = Vec::new();
    while !body.is_empty() {
        let put = take(body, 1)? == [1];
        let key: Key = str::from_utf8(take_bytes(body)?).ok()?.into();
        changes.push(if put {
            KeyChange::Put(Entry { key, value: take_bytes(body)?.into(), revision })
        } else {
            KeyChange::Deleted { key }
        });
    }
    Some(Batch { revision, changes })
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let hash = Sha256::digest(body);
    std::array::from_fn(|index| hash[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: u64) -> Batch {
        let put = |key: &str| {
            KeyChange::Put(Entry { key: key.into(), value: vec![revision as u8; 40].into(), revision })
        };
        Batch { revision, changes: vec![put("a"), KeyChange::Deleted { key: "ü".into() }, put("c")] }
    }

    fn three() -> (Vec<u8>, Vec<Batch>) {
        let batches: Vec<Batch> = (1..=3).map(batch).collect();
        (batches.iter().flat_map(encode).collect(), batches)
    }

    #[test]
    fn a_journal_cut_anywhere_gives_the_whole_entries_before_the_cut() {
        let (bytes, batches) = three();
        let one = bytes.len() / 3;
        for cut in 0..=bytes.len() {
            assert_eq!(entries(&bytes[..cut]), batches[..cut / one], "cut at {cut}");
        }
    }

    #[test]
    fn whatever_is_behind_the_entries_is_not_gathered() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let (bytes, batches) = three();
        let path = directory.path().join(FILE);
        std::fs::write(&path, bytes).expect("a journal");
        File::options().write(true).open(&path).and_then(|file| file.set_len(1 << 40)).expect("a hole");
        let (_, found) = Journal::open(directory.path()).expect("it can be read");
        assert_eq!(found, batches);
    }

    #[test]
    fn a_changed_byte_ends_the_journal_before_its_entry() {
        let (bytes, batches) = three();
        let one = bytes.len() / 3;
        for position in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[position] ^= 0x41;
            assert_eq!(entries(&broken), batches[..position / one], "byte {position}");
        }
    }
}
