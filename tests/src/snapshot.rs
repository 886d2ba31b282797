//! What there is before and after: links, addresses, routes, rules, nft tables, namespaces, processes, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::eventually::eventually;
use crate::place::Place;
use crate::runtimes::cgroup;

/// One host of the lab, as far as netd could change it.
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    pub fn take(host: &Place) -> Result<Self> {
        let mut seen = BTreeSet::new();
        for look in [
            "ip -br link",
            "ip -br addr",
            "ip route show table all",
            "ip -6 route",
            "ip rule",
            "nft list ruleset",
        ] {
            let text = host.look(look)?;
            // Lifetimes tick; anycast addresses come with forwarding, which stays on.
            seen.extend(
                text.lines()
                    .filter(|line| !line.contains("expires") && !line.contains("anycast"))
                    .map(|line| format!("{look}: {}", line.trim())),
            );
        }
        Ok(Self(seen))
    }

    /// Checks that the host looks as before, and that a daemon has left no file but its log and configuration in `dir`.
    /// What the kernel takes away in the background has a few seconds.
    pub fn compare(&self, host: &Place, dir: &Path) -> Result<()> {
        eventually(Duration::from_secs(5), "the host is as it was before", || {
            same(&self.0, &Self::take(host)?.0)?;
            let left = left_in(dir);
            ensure!(left.is_empty(), "left behind: {left:?}");
            Ok(())
        })
    }

    /// Whether there is a difference at this moment.
    pub fn differs(&self, host: &Place, dir: &Path) -> Result<bool> {
        Ok(self.0 != Self::take(host)?.0 || !left_in(dir).is_empty())
    }
}

fn left_in(dir: &Path) -> Vec<String> {
    let kept = |path: &String| ["netd.log", "netd.toml"].iter().any(|name| path.ends_with(name));
    files(dir).into_iter().filter(|path| !kept(path)).collect()
}

/// Where runtimes keep what they know. What lies deeper changes all the time on a machine that uses them.
const OF_RUNTIMES: [&str; 9] = [
    "/etc/cni/net.d",
    "/etc/containers",
    "/opt/cni/bin",
    "/run/containers",
    "/run/libpod",
    "/var/lib/cni",
    "/var/lib/containers",
    "/var/lib/containerd",
    "/var/lib/docker",
];

/// The machine the tests run on, as far as a lab that leaks could change it.
pub(crate) struct Machine(BTreeSet<String>);

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let mut seen = BTreeSet::new();
        let ours = |line: &&str| ["netd", "nd-", " nv", "sw:"].iter().any(|mark| line.contains(mark));
        for look in [["ip", "-o", "link"], ["nft", "list", "tables"]] {
            let output =
                Command::new(look[0]).args(&look[1..]).output().with_context(|| format!("run {look:?}"))?;
            seen.extend(String::from_utf8_lossy(&output.stdout).lines().filter(ours).map(str::to_owned));
        }
        for dir in ["/run/netns", "/run/netd", "/run/lab", "/var/lib/netd"] {
            seen.extend(files(Path::new(dir)));
        }
        for dir in OF_RUNTIMES {
            seen.extend(
                fs::read_dir(dir)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path().display().to_string()),
            );
        }
        let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
        let of_runtimes = |line: &&str| {
            ["/run/lab", "netns", "/cni", "/containers", "/cgroup"].iter().any(|mark| line.contains(mark))
        };
        seen.extend(mounts.lines().filter(of_runtimes).map(str::to_owned));
        seen.extend(cgroup::foreign().into_iter().map(|name| format!("cgroup {name}")));
        Ok(Self(seen))
    }

    pub(crate) fn compare(&self, after: &Self) -> Result<()> {
        same(&self.0, &after.0).context("the scenario has changed the machine it ran on")
    }
}

fn same(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<()> {
    let more: Vec<_> = after.difference(before).collect();
    let less: Vec<_> = before.difference(after).collect();
    ensure!(more.is_empty() && less.is_empty(), "new: {more:#?} gone: {less:#?}");
    Ok(())
}

/// Every file, socket and mount point under `dir`; folders alone do not count.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

pub struct ProcessInfo {
    pub pid: u32,
    pub arguments: Vec<String>,
    /// Inode of its network namespace.
    pub netns: Option<u64>,
}

/// All live processes of the lab (its process namespace holds no others).
pub fn processes() -> Result<Vec<ProcessInfo>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(process).collect())
}

/// None when it has just gone, or is a zombie: nothing of it is left but its exit code.
fn process(pid: u32) -> Option<ProcessInfo> {
    let dir = Path::new("/proc").join(pid.to_string());
    let line = fs::read(dir.join("cmdline")).ok().filter(|line| !line.is_empty())?;
    let arguments =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let netns = std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.join("ns/net")).ok()?);
    Some(ProcessInfo { pid, arguments, netns: Some(netns) })
}

/// Checks that no process is left but `sh`, which reaps, and this one.
pub(crate) fn alone() -> Result<()> {
    eventually(Duration::from_secs(5), "every program of the scenario has ended", || {
        let others =
            processes()?.into_iter().filter(|process| process.pid != 1 && process.pid != std::process::id());
        let others: Vec<_> = others.map(|process| process.arguments.join(" ")).collect();
        ensure!(others.is_empty(), "still there: {others:#?}");
        Ok(())
    })
}
