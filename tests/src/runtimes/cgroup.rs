//! A cgroup of the lab's own, which runtimes take for the root of the tree. A cgroup outlives its processes and its
//! mounts, so the outer half of a scenario takes it away again, however the inner half has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::eventually::eventually;
use crate::lab::id;

/// Puts this lab's cgroup where runtimes look for the tree. Its controllers are off, so a runtime can set no limits.
pub(super) fn cover() -> Result<()> {
    let home = tree()?.join(name(&id().context("this is not the inside of a lab")?));
    fs::create_dir_all(&home).with_context(|| format!("make the cgroup {}", home.display()))?;
    let held = Path::new("/run/lab/cgroup");
    fs::create_dir_all(held).with_context(|| format!("make {}", held.display()))?;
    bind(&home, held)?;
    let root = Path::new(ROOT);
    // With the trees of the first version there are mounts below this one.
    umount2(root, MntFlags::MNT_DETACH).with_context(|| format!("take {ROOT} off"))?;
    bind(held, root)
}

/// Removes what the lab `id` has left in the tree; its processes have ended.
pub(crate) fn sweep(id: &str) -> Result<()> {
    let Ok(tree) = tree() else { return Ok(()) };
    let home = tree.join(name(id));
    if !home.exists() {
        return Ok(());
    }
    eventually(Duration::from_secs(5), "the lab's cgroup goes", || remove(&home))
}

/// The cgroups at the top of the tree that no lab has made.
pub(crate) fn foreign() -> Vec<String> {
    let entries = tree().and_then(|tree| Ok(fs::read_dir(tree)?));
    let folders = entries.into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|top| !top.starts_with(&name(""))).collect()
}

fn remove(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup).with_context(|| format!("remove the cgroup {}", cgroup.display()))
}

/// Where this machine has the tree of the second version.
fn tree() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let place = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let place = before.split(' ').nth(4)?;
        (after.starts_with("cgroup2 ") && place.starts_with(ROOT)).then(|| PathBuf::from(place))
    });
    place.with_context(|| format!("no cgroup2 is mounted at or below {ROOT}, and runtimes need one"))
}

fn name(id: &str) -> String {
    format!("netd-lab-{id}")
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("put {} at {}", from.display(), to.display()))
}

const ROOT: &str = "/sys/fs/cgroup";
