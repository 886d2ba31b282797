//! An image for all runtimes: busybox and links to it under the names of its commands, in the format of `docker save`,
//! which podman, containerd and Docker all load.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::place::Place;

/// The name it has after loading; containerd wants the whole of it.
pub const BUSYBOX: &str = "docker.io/library/busybox:latest";

/// The archive's path; made on first use.
pub fn archive(place: &Place) -> Result<PathBuf> {
    let dir = Path::new("/run/lab/image");
    let archive = dir.join("busybox.tar");
    if archive.exists() {
        return Ok(archive);
    }
    let root = dir.join("root");
    fill(place, &root)?;
    let dir = dir.display();
    place.sh(&format!("tar -C {dir}/root --numeric-owner --owner=0 --group=0 -cf {dir}/layer.tar ."))?;
    let digest = place.sh(&format!("sha256sum {dir}/layer.tar"))?;
    let digest = digest.text().split(' ').next().context("a digest")?.to_owned();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        "history": [{ "created_by": "the lab" }],
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"] }]);
    fs::write(format!("{dir}/config.json"), config.to_string())?;
    fs::write(format!("{dir}/manifest.json"), manifest.to_string())?;
    place.sh(&format!("tar -C {dir} -cf {} config.json manifest.json layer.tar", archive.display()))?;
    Ok(archive)
}

/// A root file system with the static busybox.
fn fill(place: &Place, root: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "www"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let busybox = root.join("bin/busybox");
    fs::copy(BINARY, &busybox).with_context(|| format!("copy {BINARY}, of Debian's busybox-static"))?;
    for command in place.look(&format!("{BINARY} --list"))?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(command)).with_context(|| format!("link {command}"))?;
    }
    for (name, text) in
        [("passwd", "root:x:0:0:root:/:/bin/sh\n"), ("group", "root:x:0:\n"), ("nsswitch.conf", "")]
    {
        fs::write(root.join("etc").join(name), text)?;
    }
    Ok(())
}

const BINARY: &str = "/bin/busybox";
