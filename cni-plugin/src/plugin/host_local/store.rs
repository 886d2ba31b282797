//! The reference plugin's folder of leases, so that either can go on where the other stopped: a file an address, holding
//! the container and, on the next line, its interface; `last_reserved_ip.N` for set N; `lock`.
//!
//! All of it is done under the lock. A lease appears whole or not at all, whenever the process ends.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub(super) struct Store {
    folder: PathBuf,
    _lock: File,
}

pub(super) struct Lease {
    pub address: IpAddr,
    pub container: String,
    /// Old releases wrote none.
    pub interface: Option<String>,
}

impl Store {
    /// Waits for the lock.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Self::locked(folder)
    }

    /// `None` if nothing was ever reserved there.
    pub(super) fn open_if_there(folder: &Path) -> io::Result<Option<Self>> {
        match Self::locked(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            store => store.map(Some),
        }
    }

    fn locked(folder: &Path) -> io::Result<Self> {
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"))?;
        lock.lock()?;
        Ok(Self { folder: folder.into(), _lock: lock })
    }

    pub(super) fn leases(&self) -> io::Result<Vec<Lease>> {
        let mut leases = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let text = fs::read(entry.path())?;
            let text = String::from_utf8_lossy(&text);
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let container = lines.next().unwrap_or_default().to_owned();
            leases.push(Lease { address, container, interface: lines.next().map(str::to_owned) });
        }
        Ok(leases)
    }

    pub(super) fn reserve(&self, address: IpAddr, container: &str, interface: &str) -> io::Result<()> {
        let draft = self.draft(&format!("{container}\r\n{interface}"))?;
        // Fails if it exists, where renaming would take it from somebody.
        let reserved = fs::hard_link(&draft, self.folder.join(address.to_string()));
        let removed = fs::remove_file(&draft);
        reserved.and(removed)
    }

    pub(super) fn release(&self, address: IpAddr) -> io::Result<()> {
        match fs::remove_file(self.folder.join(address.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// What cannot be read is as good as none: the search then starts over.
    pub(super) fn last(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.last_file(set)).ok()?.trim().parse().ok()
    }

    pub(super) fn set_last(&self, set: usize, address: IpAddr) -> io::Result<()> {
        fs::rename(self.draft(&address.to_string())?, self.last_file(set))
    }

    fn last_file(&self, set: usize) -> PathBuf {
        self.folder.join(format!("last_reserved_ip.{set}"))
    }

    /// One name, under the lock: what a process left that was killed here is written over by the next.
    fn draft(&self, text: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(".draft");
        // It may be linked to a lease still: written in place, that would change the lease.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::create_new(&path)?.write_all(text.as_bytes())?;
        Ok(path)
    }
}

impl Lease {
    pub(super) fn is_of(&self, container: &str, interface: &str) -> bool {
        self.container == container && self.interface.as_deref().is_none_or(|own| own == interface)
    }
}

pub(super) fn addresses(leases: &[Lease]) -> HashSet<IpAddr> {
    leases.iter().map(|lease| lease.address).collect()
}
