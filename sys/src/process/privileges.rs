//! Giving privileges up. Capabilities, securebits and no_new_privs belong to a thread, not to the process: all of this is
//! done before the first thread is started, which then inherits it.

use std::path::Path;

use caps::CapSet;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, chdir, chroot, geteuid, setgroups, setresgid, setresuid, setsid};

use crate::error::{Doing as _, KernelError};

/// Whom a process becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

/// Datagrams that answer for another port than their socket's carry a mark, which takes this. What else it would allow,
/// raw and packet sockets, the filter on system calls does not.
const KEPT: caps::Capability = caps::Capability::CAP_NET_RAW;

/// Leaves everything behind for good: the file system (all but the empty directory `root`), groups, user, every
/// capability but the one to mark packets, and the way back by a set-uid program. The process can no longer be traced or
/// dump core.
///
/// A process that is not root has no user or root directory to change, and loses only the rest.
pub fn renounce_privileges(identity: Identity, root: Option<&Path>) -> Result<(), KernelError> {
    if geteuid().is_root() {
        if let Some(root) = root {
            chroot(root).doing("change the root directory to", root.display())?;
            chdir("/").doing("change to the new root directory", root.display())?;
        }
        // The bounding set can only be cut while CAP_SETPCAP is there; what was started without it has little to cut.
        match caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP) {
            Ok(true) => caps::clear(None, CapSet::Bounding).map_err(|error| capability("bounding", error))?,
            _ => tracing::debug!("the bounding set stays: CAP_SETPCAP is missing"),
        }
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        // Or the change of the user would take all of them.
        prctl::set_keepcaps(true).doing("keep the capabilities of", "this process")?;
        setgroups(&[]).doing("leave the groups of", "the data plane")?;
        setresgid(gid, gid, gid).doing("become group", gid)?;
        setresuid(uid, uid, uid).doing("become user", uid)?;
    }
    let held =
        caps::has_cap(None, CapSet::Permitted, KEPT).map_err(|error| capability("permitted", error))?;
    let kept: caps::CapsHashSet = held.then_some(KEPT).into_iter().collect();
    for (set, name) in [(CapSet::Ambient, "ambient"), (CapSet::Effective, "effective")] {
        caps::clear(None, set).map_err(|error| capability(name, error))?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(|error| capability("inheritable", error))?;
    for (set, name) in [(CapSet::Permitted, "permitted"), (CapSet::Effective, "effective")] {
        caps::set(None, set, &kept).map_err(|error| capability(name, error))?;
    }
    prctl::set_keepcaps(false).doing("no longer keep the capabilities of", "this process")?;
    prctl::set_no_new_privs().doing("set no_new_privs on", "this process")?;
    prctl::set_dumpable(false).doing("forbid tracing of", "this process")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).doing("forbid core files of", "this process")
}

/// A session of its own: the terminal's signals do not reach it. A process that leads its group already stays as it is.
pub fn start_session() -> Result<(), KernelError> {
    match setsid() {
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(KernelError::new("start a session for", "this process", error)),
    }
}

/// As many descriptors as the hard limit allows; returns that number.
pub fn raise_descriptor_limit() -> Result<u64, KernelError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).doing("read the limit of", "descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).doing("raise the limit of", "descriptors")?;
    Ok(hard)
}

fn capability(set: &'static str, error: caps::errors::CapsError) -> KernelError {
    KernelError::new("clear the capability set", set, std::io::Error::other(error.to_string()))
}
