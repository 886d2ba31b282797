//! A layer over the folders that runtimes write to: they see what the machine has installed and configured, and what
//! they write is gone with the lab's mount namespace.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::cgroup;
use crate::lab::RESOLV_CONF;

pub fn lay() -> Result<()> {
    for dir in ["/etc", "/var", "/opt", "/usr/local/lib"] {
        overlay(Path::new(dir))?;
    }
    // The lab's resolv.conf lay on the folder that is now covered.
    let resolv = Path::new("/etc/resolv.conf");
    fs::remove_file(resolv).ok();
    symlink(RESOLV_CONF, resolv).context("lead to the lab's resolv.conf again")?;
    // Images are layers, too, and a layer cannot lie on a layer. Locks and sockets are in memory anyway.
    for dir in ["/var/lib/containers", "/var/lib/containerd", "/var/lib/docker", "/dev/shm"] {
        fs::create_dir_all(dir).with_context(|| format!("make {dir}"))?;
        memory(dir)?;
    }
    cgroup::cover()
}

fn overlay(dir: &Path) -> Result<()> {
    let above = Path::new("/run/lab/cover").join(dir.strip_prefix("/")?);
    let (upper, work) = (above.join("upper"), above.join("work"));
    for part in [&upper, &work] {
        fs::create_dir_all(part).with_context(|| format!("make {}", part.display()))?;
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", dir.display(), upper.display(), work.display());
    mount(Some("overlay"), dir, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("cover {}", dir.display()))
}

fn memory(dir: &str) -> Result<()> {
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cover {dir}"))
}
