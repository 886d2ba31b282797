//! aardvark-dns as podman starts it: a folder with one file a network, whose lines are containers with their names.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::{Place, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rival::program;
use crate::site::Container;
use crate::task::Server;

/// It forks; the child writes its number into the folder.
pub(crate) struct Aardvark {
    _parent: Server,
    pid_file: PathBuf,
}

pub(crate) fn start(
    place: &Place,
    container: &Container,
    at: SocketAddr,
    names: &[String],
) -> Result<Aardvark> {
    let program = program("aardvark-dns", "aardvark-dns")?;
    let dir = Path::new("/run/lab/aardvark");
    fs::create_dir_all(dir)?;
    let mut network = format!("{}\n", container.gateway);
    // Whoever asks has to be known.
    let _ = writeln!(network, "client {}  client", container.address);
    for (number, name) in names.iter().enumerate() {
        let _ = writeln!(network, "id{number} 10.200.{}.{}  {name}", number / 250, number % 250 + 1);
    }
    fs::write(dir.join("rival"), network)?;
    let line = format!("{} --config {} -p {} run", program.display(), dir.display(), at.port());
    let parent = Server::start(place, &line)?;
    let pid_file = dir.join("aardvark.pid");
    eventually(Duration::from_secs(5), "aardvark-dns is there", || {
        ensure!(pid_file.exists(), "it said: {}", parent.output());
        Ok(())
    })?;
    Ok(Aardvark { _parent: parent, pid_file })
}

impl Drop for Aardvark {
    fn drop(&mut self) {
        let pid =
            fs::read_to_string(&self.pid_file).context("no pid").and_then(|text| Ok(text.trim().parse()?));
        // It may have ended by itself.
        if let Ok(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
