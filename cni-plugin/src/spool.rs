//! Tombstones: attachments that a DEL was told to take away while the daemon did not answer. Each is a small file in a
//! folder; whatever call finds the daemon again carries them out first.
//!
//! A tombstone must never meet the next life of its container. So they are carried out under a lock on the folder,
//! and removed only then: an ADD that sees none knows that none is being carried out either.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::daemon::Attachment;
use crate::error::{Code, Failure, Result};
use crate::spec::hash;

pub(crate) struct Spool<'a> {
    folder: &'a Path,
    /// Daemons may share a folder.
    socket: &'a Path,
}

impl<'a> Spool<'a> {
    pub(crate) const fn new(folder: &'a Path, socket: &'a Path) -> Self {
        Self { folder, socket }
    }

    /// Safe on disk when this returns. Twice is once.
    pub(crate) fn put(&self, attachment: &Attachment) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.folder)?;
        let path = self.path(attachment);
        let draft = path.with_extension(format!("{}.tmp", std::process::id()));
        let text = json!({
            "socket": self.socket,
            "network": attachment.network,
            "containerID": attachment.container,
            "ifname": attachment.interface,
        });
        let written = File::create(&draft)
            .and_then(|mut file| file.write_all(text.to_string().as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            // A full disk: what little of it there is must not stay.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// Carries out up to [`AT_ONCE`] tombstones, that of `first` before the others. Ends early when the daemon does not
    /// answer. Fails only if the folder cannot be read.
    pub(crate) fn replay(
        &self,
        first: Option<&Attachment>,
        mut detach: impl FnMut(&Attachment) -> Result<()>,
    ) -> Result<()> {
        if self.list().map_err(|error| self.unreadable(&error))?.is_empty() {
            return Ok(());
        }
        let lock = File::open(self.folder).and_then(|folder| folder.lock().map(|()| folder));
        let _held = lock.map_err(|error| self.unreadable(&error))?;
        let mut found = self.list().map_err(|error| self.unreadable(&error))?;
        let own = first.map(|attachment| self.path(attachment));
        found.sort_by_key(|path| Some(path) != own.as_ref());
        let mine = found.iter().filter_map(|path| Some((path, self.read(path)?)));
        for (path, attachment) in mine.take(AT_ONCE) {
            match detach(&attachment) {
                Err(failure) if failure.code == Code::TryAgain => return Ok(()),
                // The daemon has done what it could and repairs the rest when it starts.
                Err(failure) => eprintln!("netd-cni: {}: {}", failure.message, failure.details),
                Ok(()) => {}
            }
            fs::remove_file(path).map_err(|error| self.unreadable(&error))?;
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.filter(|path| path.as_ref().map_or(true, |path| is_tombstone(path))).collect()
    }

    /// `None` if it is for another daemon, or nothing that was written here.
    fn read(&self, path: &Path) -> Option<Attachment> {
        let text: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let field = |key: &str| text.get(key)?.as_str().map(str::to_owned);
        let attachment = Attachment {
            network: field("network")?,
            container: field("containerID")?,
            interface: field("ifname")?,
        };
        (Some(self.socket) == field("socket").as_deref().map(Path::new)).then_some(attachment)
    }

    fn path(&self, attachment: &Attachment) -> PathBuf {
        let Attachment { network, container, interface } = attachment;
        let name = hash(&[&self.socket.to_string_lossy(), network, container, interface]);
        self.folder.join(format!("{name}.{EXTENSION}"))
    }

    fn unreadable(&self, error: &io::Error) -> Failure {
        let message = format!("cannot work through the folder {}", self.folder.display());
        Failure::new(Code::TryAgain, message, error.to_string())
    }
}

fn is_tombstone(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

const EXTENSION: &str = "tombstone";
/// About half a second of the daemon's time; what is left waits for the next call.
const AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str) -> Attachment {
        Attachment { network: "app".into(), container: container.into(), interface: "eth0".into() }
    }

    fn away() -> Failure {
        Failure::new(Code::TryAgain, "nobody there", "")
    }

    #[test]
    fn tombstones_wait_for_the_daemon_and_go_once() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a/spool");
        let spool = Spool::new(&place, Path::new("/run/netd/netd.sock"));
        spool.replay(None, |_| unreachable!("nothing is there yet")).unwrap();
        for container in ["one", "two", "one"] {
            spool.put(&attachment(container)).unwrap();
        }
        spool.replay(None, |_| Err(away())).unwrap();
        let elsewhere = Spool::new(&place, Path::new("/run/other.sock"));
        elsewhere.replay(None, |_| unreachable!("it is another daemon's")).unwrap();

        let mut done = Vec::new();
        let two = attachment("two");
        spool
            .replay(Some(&two), |attachment| {
                done.push(attachment.container.clone());
                Ok(())
            })
            .unwrap();
        assert_eq!(done, ["two", "one"], "the caller's own first");
        spool.replay(None, |_| unreachable!("they are done")).unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_tombstone_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.tombstone"), "{").unwrap();
        fs::write(folder.path().join("README"), "mine").unwrap();
        let spool = Spool::new(folder.path(), Path::new("/s"));
        spool.replay(None, |_| unreachable!("neither can be read as one")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let spool = Spool::new(file.path(), Path::new("/s"));
        assert!(spool.put(&attachment("one")).is_err());
    }
}
