//! The distribution's own container runtimes, as their packages install them, on one machine of the lab: podman,
//! containerd with `ctr`, and Docker. They find their usual folders (/etc, /var, /opt), a cgroup tree and images there,
//! all of which end with the scenario: see `cover` and `cgroup` for how the machine underneath is left alone.

pub mod cgroup;
pub mod containerd;
pub mod cover;
pub mod cri;
pub mod dockerd;
pub mod image;
pub mod podman;

pub use containerd::Containerd;
pub use cri::Cri;
pub use dockerd::Dockerd;
pub use podman::Podman;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup, binary_dir};
use crate::eventually::eventually;
use crate::host::Host;
use crate::lab::Lab;

/// A machine with netd at its usual socket, its plugin at its usual place, and folders that runtimes may write to.
pub struct Site {
    pub host: Host,
    pub netd: Daemon,
}

impl Site {
    pub fn new(lab: &Lab) -> Result<Self> {
        Self::with(lab, "")
    }

    /// With the text of netd's configuration file.
    pub fn with(lab: &Lab, config: &str) -> Result<Self> {
        cover::lay()?;
        let host = lab.host("n1")?;
        let netd = host.daemon_with(Setup { config: config.into(), ..Setup::default() })?;
        link(&netd.socket(), "/run/netd/netd.sock")?;
        let plugin = binary_dir()?.join("netd-cni");
        link(&plugin, "/opt/cni/bin/netd-cni")?;
        for name in PLUGINS {
            link(&plugin, &format!("/usr/local/lib/netd/cni/{name}"))?;
        }
        Ok(Self { host, netd })
    }

    /// What is left of netd's after the last container was removed: no sandbox, and soon no link.
    pub fn left_nothing(&self) -> Result<()> {
        let sandboxes = self.netd.netd("sandbox ls")?;
        ensure!(!sandboxes.stdout.contains("cni-"), "{}", sandboxes.stdout);
        eventually(Duration::from_secs(5), "the links of the containers go", || {
            let links = self.host.look("ip -br link")?;
            ensure!(!links.lines().any(|line| line.starts_with("nv")), "{links}");
            Ok(())
        })
    }
}

/// As `make install` lays them.
const PLUGINS: [&str; 9] =
    ["netd-cni", "bandwidth", "bridge", "dnsname", "firewall", "host-local", "loopback", "portmap", "tuning"];

/// A configuration of one plugin, netd's, where podman and containerd look: `/etc/cni/net.d/FILE.conflist`, the network
/// NAME, and `more` keys of the plugin.
pub fn conflist(file: &str, name: &str, more: &Value) -> Result<()> {
    let mut plugin = json!({
        "type": "netd-cni",
        "capabilities": { "aliases": true, "ips": true, "mac": true, "portMappings": true },
    });
    if let (Some(plugin), Some(more)) = (plugin.as_object_mut(), more.as_object()) {
        plugin.extend(more.clone());
    }
    let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": [plugin] });
    write(&format!("/etc/cni/net.d/{file}.conflist"), &serde_json::to_string_pretty(&list)?)
}

/// `path` leads to `target`.
pub fn link(target: &Path, path: &str) -> Result<()> {
    make_folder_of(path)?;
    symlink(target, path).with_context(|| format!("link {path}"))
}

pub fn write(path: &str, text: &str) -> Result<()> {
    make_folder_of(path)?;
    std::fs::write(path, text).with_context(|| format!("write {path}"))
}

fn make_folder_of(path: &str) -> Result<()> {
    let folder = Path::new(path).parent().context("a file lies in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
}
