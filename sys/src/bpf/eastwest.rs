//! Connections to a service that go straight to one of its backends: programs on a cgroup put the backend's address in the
//! place of the service's when a process connects (`bpf/eastwest.bpf.c`). What they go by is in maps, which this writes.
//!
//! Sockets of other namespaces than those that are told of are not touched. Programs and maps are pinned nowhere: they
//! are in force while somebody holds [`EastWest::descriptors`], and whoever is given those takes over
//! ([`EastWest::adopt`]), with all that sockets remember.

#[cfg(feature = "bpf")]
mod layout;
#[cfg(feature = "bpf")]
mod loaded;
#[cfg(not(feature = "bpf"))]
mod without;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use super::{Steered, Transport};
use crate::error::{Doing as _, KernelError};
use crate::netns::Netns;
#[cfg(not(feature = "bpf"))]
use without as loaded;

/// Where a service is asked for. Port 0: every port of the address that has no entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    pub transport: Transport,
    pub address: IpAddr,
    pub port: u16,
}

/// Who answers, of the service's family. Port 0: the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
}

/// What is asked for at a [`Vip`]: backends 0 to `count` of a slot, by those namespaces that are on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// From 1 on. Never that of another service: it is how an entry that has become another one is told.
    pub slot: u64,
    /// From 1 on.
    pub network: u32,
    /// With none, the programs leave the service alone.
    pub count: u32,
    /// A namespace keeps its backend for so long after its last connection.
    pub affinity: Option<Duration>,
}

/// One entry of the maps, as they can be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Member { namespace: u64, network: u32 },
    Service(Vip, Service),
    Seat { slot: u64, number: u32, backend: Backend },
    Live { slot: u64, backend: Backend },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member { namespace, network } => write!(f, "namespace {namespace} on network {network}"),
            Self::Service(vip, _) => write!(f, "service {vip}"),
            Self::Seat { slot, backend, .. } | Self::Live { slot, backend } => {
                write!(f, "backend {} of service {slot}", SocketAddr::new(backend.address, backend.port))
            }
        }
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, address, port } = *self;
        Steered { transport, address, port }.fmt(f)
    }
}

/// A backend that a service has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gone {
    pub transport: Transport,
    pub vip: IpAddr,
    pub backend: IpAddr,
}

/// Backends that all services together may have, each of its weight's shares counted.
pub const SEATS: usize = 262_144;

/// The programs, in force on one cgroup, and what they go by.
#[derive(Debug)]
pub struct EastWest {
    loaded: loaded::Loaded,
}

impl EastWest {
    /// In force for all processes of the cgroup and of those below, with nothing to do yet.
    pub fn attach(cgroup: BorrowedFd<'_>) -> Result<Self, KernelError> {
        Ok(Self { loaded: loaded::Loaded::attach(cgroup)? })
    }

    /// Takes over what another process of the same [`EastWest::build`] has attached.
    pub fn adopt(descriptors: Vec<OwnedFd>) -> Result<Self, KernelError> {
        Ok(Self { loaded: loaded::Loaded::adopt(descriptors)? })
    }

    /// Whether this kernel, and this build, can.
    pub fn probe() -> Result<(), KernelError> {
        loaded::probe()
    }

    /// Changes with the programs and with the form of their maps.
    pub fn build() -> u64 {
        loaded::build()
    }

    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.loaded.descriptors()
    }

    /// Everything that is in the maps.
    pub fn entries(&self) -> Result<Vec<Entry>, KernelError> {
        self.loaded.entries()
    }

    /// What has been led to a backend, to be looked at on any thread.
    pub fn connections(&self) -> Result<Connections, KernelError> {
        Ok(Connections { loaded: self.loaded.connections()? })
    }

    /// One that is there is replaced, for readers in one step.
    pub fn put(&self, entry: Entry) -> Result<(), KernelError> {
        self.loaded.put(entry)
    }

    /// By what tells entries of its sort apart. One that is not there is no error.
    pub fn remove(&self, entry: Entry) -> Result<(), KernelError> {
        self.loaded.remove(entry)
    }
}

/// Connections that have been led to a backend. Each socket carries what it was told, so that one whose program has connected
/// to the backend itself is never taken for one of these.
#[derive(Debug)]
pub struct Connections {
    loaded: loaded::Connections,
}

impl Connections {
    /// Whether a namespace has been led to this backend. With very many such pairs the oldest are forgotten.
    pub fn has(&self, namespace: u64, backend: IpAddr) -> Result<bool, KernelError> {
        self.loaded.has(namespace, backend)
    }

    /// Ends what a namespace has with these backends, and says how many that were: the next call of a program on such a
    /// socket fails with `ECONNABORTED`. Datagram sockets that are not connected are led elsewhere anyhow, and stay.
    pub fn end(&self, netns: &Netns, gone: &[Gone]) -> Result<usize, KernelError> {
        self.loaded.end(netns, gone)
    }
}

/// The root of the cgroups (of version 2) that this process can see.
pub fn cgroup_root() -> Result<OwnedFd, KernelError> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let table = fs::read_to_string(MOUNTS).doing("read", MOUNTS)?;
    let absent = || io::Error::new(io::ErrorKind::NotFound, "none is mounted (`mount -t cgroup2 ...`)");
    let path =
        cgroup_mount(&table).ok_or_else(absent).doing("find the hierarchy of", "cgroups (version 2)")?;
    Ok(File::open(&path).doing("open the cgroup", path.display())?.into())
}

fn cgroup_mount(table: &str) -> Option<PathBuf> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, path) = (fields.next()?, fields.next()?);
        (after.starts_with("cgroup2 ") && root == "/").then(|| unescape(path).into())
    };
    table.lines().find_map(mount)
}

/// The table has spaces and the like in octal.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012"]
        .iter()
        .zip([" ", "\t", "\n"])
        .fold(path.to_owned(), |path, (from, to)| path.replace(from, to))
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_wherever_it_is_mounted() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu\n\
            40 31 0:38 /user /run/part rw - cgroup2 cgroup2 rw\n\
            41 31 0:38 / /sys/fs/my\\040cgroup rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_mount(table), Some("/sys/fs/my cgroup".into()));
        assert_eq!(cgroup_mount(&table[..150]), None);
    }
}
