//! Tombstones: attachments that a CNI DEL was told to take away while the daemon did not answer. Each is a small file in
//! a folder. The daemon carries them out when it starts and whenever one appears; the plugin does, when it finds the
//! daemon first.
//!
//! A tombstone must never meet the next life of its container. So they are carried out under a lock on the folder, and
//! removed only then: an ADD that sees none knows that none is being carried out either.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::value::{LinkName, NetworkName, SandboxName};

/// The folder's name in the daemon's state directory.
pub const FOLDER: &str = "cni-spool";
pub const DEFAULT: &str = "/var/lib/netd/cni-spool";

/// What is to be taken away: see [`crate::sandbox::Leave`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// Whose it is: daemons may share a folder.
    pub socket: PathBuf,
    pub sandbox: SandboxName,
    pub network: NetworkName,
    pub interface: LinkName,
}

#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

/// The folder, with nobody else at work in it.
#[derive(Debug)]
pub struct Held {
    folder: PathBuf,
    _lock: File,
}

/// A tombstone that is there.
#[derive(Debug)]
pub struct Waiting {
    pub tombstone: Tombstone,
    path: PathBuf,
}

impl Spool {
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    /// Safe on disk when this returns, and whole or absent whenever it ends. `stem` is the file's name: the same for the
    /// same attachment, so that twice is once.
    pub fn put(&self, stem: &str, tombstone: &Tombstone) -> io::Result<()> {
        self.make()?;
        let path = self.folder.join(format!("{stem}.{EXTENSION}"));
        if !path.exists() && self.paths()?.len() >= MOST {
            return Err(io::Error::other(format!(
                "{MOST} notes wait there already; start netd, which carries them out"
            )));
        }
        let draft = path.with_extension(format!("{}.{DRAFT}", std::process::id()));
        let text = serde_json::to_vec(tombstone)?;
        let written = File::create(&draft)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &path))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if written.is_err() {
            // A full disk: what little of it there is must not stay.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// Waits for whoever is at work there. `None` if there is nothing to do.
    pub fn hold(&self) -> io::Result<Option<Held>> {
        self.lock_with(|folder| folder.lock())
    }

    /// Fails with [`ErrorKind::WouldBlock`] while somebody else is at work there.
    pub fn try_hold(&self) -> io::Result<Option<Held>> {
        self.lock_with(|folder| {
            folder.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
                TryLockError::Error(error) => error,
            })
        })
    }

    fn lock_with(&self, lock: impl FnOnce(&File) -> io::Result<()>) -> io::Result<Option<Held>> {
        if self.paths()?.is_empty() {
            return Ok(None);
        }
        let folder = File::open(&self.folder)?;
        lock(&folder)?;
        Ok(Some(Held { folder: self.folder.clone(), _lock: folder }))
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        files(&self.folder, EXTENSION)
    }
}

impl Held {
    /// Those for the daemon at `socket`. What is none, or another daemon's, stays.
    pub fn waiting(&self, socket: &Path) -> io::Result<Vec<Waiting>> {
        self.sweep();
        let found = files(&self.folder, EXTENSION)?.into_iter().filter_map(|path| {
            let tombstone: Tombstone = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            (tombstone.socket == socket).then_some(Waiting { tombstone, path })
        });
        Ok(found.collect())
    }

    /// What a plugin that was killed while writing has left.
    fn sweep(&self) {
        for path in files(&self.folder, DRAFT).unwrap_or_default() {
            let written = fs::metadata(&path).and_then(|found| found.modified());
            let age = written.ok().and_then(|written| SystemTime::now().duration_since(written).ok());
            if age.is_some_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

impl Waiting {
    #[must_use]
    pub fn is(&self, stem: &str) -> bool {
        self.path.file_stem().is_some_and(|own| own == stem)
    }

    /// It is carried out.
    pub fn done(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let is_one = |path: &PathBuf| path.extension().is_some_and(|own| own == extension);
    paths.filter(|path| path.as_ref().map_or(true, is_one)).collect()
}

const EXTENSION: &str = "tombstone";
const DRAFT: &str = "tmp";
/// More attachments than a host has.
const MOST: usize = 16_384;
/// Writing one takes milliseconds.
const ABANDONED: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(socket: &str, sandbox: &str) -> Tombstone {
        Tombstone {
            socket: socket.into(),
            sandbox: sandbox.parse().unwrap(),
            network: "app".parse().unwrap(),
            interface: "eth0".parse().unwrap(),
        }
    }

    #[test]
    fn a_note_is_there_once_until_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().join("a/spool"));
        assert!(spool.hold().unwrap().is_none(), "nothing is there yet");
        for name in ["one", "two", "one"] {
            spool.put(name, &tombstone("/s", name)).unwrap();
        }
        spool.put("three", &tombstone("/other", "three")).unwrap();
        let held = spool.hold().unwrap().unwrap();
        assert_eq!(spool.try_hold().unwrap_err().kind(), ErrorKind::WouldBlock);
        let waiting = held.waiting(Path::new("/s")).unwrap();
        assert_eq!(waiting.len(), 2, "{waiting:?}");
        assert!(waiting.iter().any(|one| one.is("two") && one.tombstone == tombstone("/s", "two")));
        waiting.into_iter().for_each(|one| one.done().unwrap());
        drop(held);
        let left = spool.try_hold().unwrap().unwrap().waiting(Path::new("/other")).unwrap();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn what_is_no_note_is_left_alone_and_old_drafts_go() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x.tombstone", "README", "new.1.tmp", "old.2.tmp"] {
            fs::write(folder.path().join(name), "{").unwrap();
        }
        let old = File::options().write(true).open(folder.path().join("old.2.tmp")).unwrap();
        old.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        let held = Spool::new(folder.path()).hold().unwrap().unwrap();
        assert_eq!(held.waiting(Path::new("/s")).unwrap().len(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_folder_that_is_full_or_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..MOST {
            File::create(folder.path().join(format!("{number}.{EXTENSION}"))).unwrap();
        }
        let refused = Spool::new(folder.path()).put("one", &tombstone("/s", "one")).unwrap_err();
        assert!(refused.to_string().contains("start netd"), "{refused}");
        Spool::new(folder.path()).put("7", &tombstone("/s", "one")).expect("it is there already");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Spool::new(file.path()).put("one", &tombstone("/s", "one")).is_err());
    }
}
