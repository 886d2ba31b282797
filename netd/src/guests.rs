//! Guests: sandboxes in namespaces that somebody else has made. Here is how to tell that such a namespace is gone, and
//! what to wait for until then.
//!
//! It cannot be left to the kernel: our own sockets at 127.0.0.11 keep a namespace alive that nobody else has any more,
//! so its devices never go by themselves. A namespace lives while the path that it was given by leads to it, while it is
//! mounted somewhere, and while a thread is in it. The first two end with a change of the mount table or with a process,
//! the last with a process: each can be waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use netd_sys::netns::Netns;
use netd_sys::process::PidFd;

use crate::model::{Id, Mode, Model, Sandbox, SandboxKey};

/// What is known of one guest, as its record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    pub id: Id,
    pub path: PathBuf,
    /// Device and inode.
    pub netns: (u64, u64),
    /// 0: not known.
    pub cookie: u64,
    pub boot: Arc<str>,
    /// Where sandboxes that share it have it mounted: those are ours, and prove nothing.
    pub ours: BTreeSet<PathBuf>,
}

/// What keeps a namespace alive, and so what has to end before there is reason to look again.
#[derive(Debug)]
pub(crate) enum Anchor {
    Mount,
    Process(PidFd),
}

impl Guest {
    /// None for a sandbox whose namespace is ours or another sandbox's: those do not go by themselves.
    pub(crate) fn of(sandbox: &Sandbox, model: &Model) -> Option<Self> {
        let is_guest = !sandbox.netns_is_ours && matches!(sandbox.mode, Mode::Bridge | Mode::None);
        is_guest.then(|| Self {
            id: Arc::clone(&sandbox.id),
            path: sandbox.netns.clone(),
            netns: sandbox.netns_identity,
            cookie: sandbox.netns_cookie,
            boot: Arc::clone(&sandbox.boot),
            ours: sharers(sandbox, model).map(|sharer| sharer.netns.clone()).collect(),
        })
    }

    fn is_at(&self, path: &Path) -> bool {
        Netns::open(path).is_ok_and(|found| self.is(&found))
    }

    /// A namespace that came later may have its inode.
    fn is(&self, found: &Netns) -> bool {
        let is_known = || self.cookie == 0 || found.cookie().is_ok_and(|cookie| cookie == self.cookie);
        (found.id().device, found.id().inode) == self.netns && is_known()
    }

    /// What cannot be opened may be it: a place in the table may be covered by now, or written otherwise there.
    fn may_be_at(&self, path: &Path) -> bool {
        Netns::open(path).map_or(true, |found| self.is(&found))
    }

    /// Whether its own path still leads to it. Cheap, and false is no proof of its end.
    pub(crate) fn is_in_place(&self, boot: &str) -> bool {
        !self.is_of_another_boot(boot) && self.is_at(&self.path)
    }

    fn is_of_another_boot(&self, boot: &str) -> bool {
        !self.boot.is_empty() && *self.boot != *boot
    }

    fn is_mounted(&self, mounted: &Mounted) -> bool {
        let at = mounted.get(&self.netns.1).map_or(&[][..], Vec::as_slice);
        at.iter().any(|path| !self.ours.contains(path) && self.may_be_at(path))
    }

    /// By its own path: the cheap look, which most guests pass.
    fn anchored_by_path(&self) -> Option<Anchor> {
        if !self.is_at(&self.path) {
            return None;
        }
        let Some(pid) = process_of(&self.path) else { return Some(Anchor::Mount) };
        let process = PidFd::open(pid).ok()?;
        // The number may have been given to another process before it was pinned.
        self.is_at(&self.path).then_some(Anchor::Process(process))
    }
}

/// Each with what keeps it alive, or with nothing: then it is gone. It takes a walk through /proc, if a path leads
/// nowhere: not for a thread that others wait for.
pub(crate) fn look(guests: Vec<Guest>) -> Vec<(Guest, Option<Anchor>)> {
    let boot = boot();
    let mut seen = Vec::with_capacity(guests.len());
    let mut missing = Vec::new();
    for guest in guests {
        if guest.is_of_another_boot(&boot) {
            seen.push((guest, None));
            continue;
        }
        match guest.anchored_by_path() {
            Some(anchor) => seen.push((guest, Some(anchor))),
            None => missing.push(guest),
        }
    }
    if missing.is_empty() {
        return seen;
    }
    let mounted = fs::read_to_string(MOUNTS).map(|table| mounted(&table)).unwrap_or_default();
    let (kept, mut missing): (Vec<_>, Vec<_>) =
        missing.into_iter().partition(|guest| guest.is_mounted(&mounted));
    seen.extend(kept.into_iter().map(|guest| (guest, Some(Anchor::Mount))));
    // A process may end, and another begin, while they are walked through.
    for _ in 0..ROUNDS {
        let wanted: BTreeSet<u64> = missing.iter().map(|guest| guest.netns.1).collect();
        if wanted.is_empty() {
            break;
        }
        let inhabitants = inhabitants(&wanted);
        let mut again = Vec::new();
        for guest in missing {
            match inhabitants.get(&guest.netns.1) {
                Some((pid, netns)) if guest.may_be_at(netns) => match PidFd::open(*pid) {
                    Ok(process) => seen.push((guest, Some(Anchor::Process(process)))),
                    Err(_) => again.push(guest),
                },
                _ => seen.push((guest, None)),
            }
        }
        missing = again;
    }
    // They were inhabited a moment ago: whoever looks next will see.
    seen.extend(missing.into_iter().map(|guest| (guest, Some(Anchor::Mount))));
    seen
}

/// This boot's id; empty where the kernel does not tell.
pub(crate) fn boot() -> Arc<str> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| "".into(), |id| id.trim().into())
}

/// The process of `/proc/PID/...`: what the path leads to ends with it.
fn process_of(path: &Path) -> Option<u32> {
    let mut parts = path.components().skip_while(|part| *part == Component::RootDir);
    (parts.next()?.as_os_str() == "proc").then(|| parts.next()?.as_os_str().to_str()?.parse().ok())?
}

/// By the namespace's inode, where it is mounted.
type Mounted = BTreeMap<u64, Vec<PathBuf>>;

/// The network namespaces in a mount table: the fourth field is `net:[INODE]`, the fifth the place.
fn mounted(table: &str) -> Mounted {
    let mut mounted = Mounted::new();
    for line in table.lines() {
        let mut fields = line.split(' ').skip(3);
        let inode =
            fields.next().and_then(|root| root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok());
        if let Some((inode, place)) = inode.zip(fields.next()) {
            mounted.entry(inode).or_default().push(place.into());
        }
    }
    mounted
}

/// The sandboxes that live in this one's namespace.
pub(crate) fn sharers<'a>(
    sandbox: &Sandbox,
    model: &'a Model,
) -> impl Iterator<Item = &'a Arc<Sandbox>> + use<'a> {
    model.sandboxes.by(&SandboxKey::Shares(Arc::clone(&sandbox.id)))
}

/// A process with a thread in each of these namespaces, and where that thread's namespace can be opened. Not this process: a thread of ours may be on a visit.
fn inhabitants(wanted: &BTreeSet<u64>) -> BTreeMap<u64, (u32, PathBuf)> {
    let mut found = BTreeMap::new();
    for process in numbered(Path::new("/proc")).filter(|(pid, _)| *pid != std::process::id()) {
        for (_, thread) in numbered(&process.1.join("task")) {
            let path = thread.join("ns/net");
            let Ok(netns) = fs::metadata(&path) else { continue };
            if wanted.contains(&netns.ino()) {
                found.insert(netns.ino(), (process.0, path));
            }
        }
        if found.len() == wanted.len() {
            break;
        }
    }
    found
}

fn numbered(folder: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// Its last field but one changes, and whoever polls it is told, with every mount and unmount.
pub(crate) const MOUNTS: &str = "/proc/self/mountinfo";
const ROUNDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_proc_belongs_to_its_process() {
        for (path, pid) in [
            ("/proc/4242/ns/net", Some(4242)),
            ("/proc/17/task/18/ns/net", Some(17)),
            ("/proc/9/fd/3", Some(9)),
            ("/proc/self/ns/net", None),
            ("/run/netns/7", None),
            ("/proc", None),
            ("/", None),
        ] {
            assert_eq!(process_of(Path::new(path)), pid, "{path}");
        }
    }

    #[test]
    fn the_mount_table_tells_which_namespaces_are_mounted() {
        let table = "36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/root rw\n\
            1206 25 0:4 net:[4026532281] /run/netns/web rw shared:559 - nsfs nsfs rw\n\
            1207 25 0:4 mnt:[4026532290] /run/x rw - nsfs nsfs rw\n\
            \n1208 25 0:4 net:[no] /y rw - nsfs nsfs rw\n";
        assert_eq!(mounted(table), Mounted::from([(4_026_532_281, vec!["/run/netns/web".into()])]));
    }

    #[test]
    fn one_that_is_there_is_anchored_and_one_that_never_was_is_gone() {
        let own = fs::metadata("/proc/self/ns/net").expect("every process has one");
        let path = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
        let guest = |path: &Path, inode, boot: &str| Guest {
            id: "id".into(),
            path: path.into(),
            netns: (own.dev(), inode),
            cookie: 0,
            boot: boot.into(),
            ours: BTreeSet::new(),
        };
        let stranger = Guest { cookie: 1 << 60, ..guest(&path, own.ino(), &boot()) };
        assert!(look(vec![stranger])[0].1.is_none(), "the inode was given out again");
        let seen = look(vec![
            guest(&path, own.ino(), &boot()),
            guest(Path::new("/nowhere"), 1, ""),
            guest(&path, own.ino(), "an earlier one"),
        ]);
        assert_eq!(seen.len(), 3);
        for (guest, anchor) in seen {
            let is_there = guest.netns.1 != 1 && &*guest.boot != "an earlier one";
            assert_eq!(matches!(anchor, Some(Anchor::Process(_))), is_there, "{guest:?} {anchor:?}");
        }
    }
}
