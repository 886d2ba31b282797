//! What a sandbox has in the run directory: its `resolv.conf` and `hosts`, and a note of its namespace that tells the
//! next start what to clean up should the sandbox never have been committed.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
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
        if says(&path, text).unwrap_or(false) {
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

/// Whether that is all that the file says. Programs that have it mounted may have made it as long as they like.
fn says(path: &Path, text: &str) -> io::Result<bool> {
    let mut found = Vec::new();
    File::open(path)?.take(text.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(found == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_written_when_it_says_anything_else_and_in_place() {
        let run = TempDir::new().expect("a directory");
        let files = Files::new(run.path());
        let path = files.directory("ab").join(HOSTS);
        fs::create_dir_all(files.directory("ab")).expect("the sandbox's directory");
        let number = || fs::metadata(&path).expect("the file is there").ino();
        files.write("ab", HOSTS, "one").expect("written");
        let first = number();
        for before in ["one", "on", "one two", "", "two"] {
            fs::write(&path, before).expect("a program writes it");
            files.write("ab", HOSTS, "one").expect("written");
            assert_eq!(
                (fs::read_to_string(&path).expect("text"), number()),
                ("one".into(), first),
                "{before:?}"
            );
        }
    }

    /// A sandbox's root can write what is mounted over its `/etc/hosts`: a hole of a terabyte costs it nothing.
    #[test]
    fn no_more_of_a_file_is_read_than_it_should_have() {
        let run = TempDir::new().expect("a directory");
        let files = Files::new(run.path());
        fs::create_dir_all(files.directory("ab")).expect("the sandbox's directory");
        let path = files.directory("ab").join(HOSTS);
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a file without an end");
        assert!(!says(&path, "one").expect("it can be read"));
        files.write("ab", HOSTS, "one").expect("written");
    }
}
