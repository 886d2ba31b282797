//! What a sandbox has in the run directory: its `resolv.conf` and `hosts`, and a note of its namespace that tells the
//! next start what to clean up should the sandbox never have been committed.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::model::{Id, Sandbox};

pub(crate) const RESOLV_CONF: &str = "resolv.conf";
pub(crate) const HOSTS: &str = "hosts";
const NETNS: &str = "netns";

#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self { root: run_dir.join("sandboxes") }
    }

    pub(crate) fn directory(&self, sandbox: &str) -> PathBuf {
        self.root.join(sandbox)
    }

    /// Makes the directory and notes the namespace in it, if it is ours to remove.
    pub(crate) fn announce(&self, sandbox: &Sandbox) -> anyhow::Result<()> {
        let directory = self.directory(&sandbox.id);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        if sandbox.netns_is_ours {
            let path = directory.join(NETNS);
            let text = sandbox.netns.as_os_str().as_encoded_bytes();
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Written in place, not renamed: a running program has the file itself mounted over its own.
    pub(crate) fn write(&self, sandbox: &str, name: &str, text: &str) -> io::Result<()> {
        let path = self.directory(sandbox).join(name);
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
        file.write_all(text.as_bytes())
    }

    pub(crate) fn remove(&self, sandbox: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.directory(sandbox)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Every sandbox that has a directory, with the namespace that is noted there.
    pub(crate) fn announced(&self) -> io::Result<Vec<(Id, Option<PathBuf>)>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().map(Id::from) else { continue };
            let noted = fs::read_to_string(entry.path().join(NETNS)).ok().map(PathBuf::from);
            found.push((id, noted));
        }
        Ok(found)
    }
}
