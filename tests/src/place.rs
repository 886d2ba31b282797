//! A network namespace one can do things in. A thread goes in to make a descriptor or start a program and ends; the
//! descriptor and the program are then used from anywhere.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::report::Transcript;

#[derive(Clone)]
pub struct Place {
    pub name: String,
    /// A file that leads to the namespace; none: the lab's own.
    netns: Option<PathBuf>,
    /// What programs started here find in their environment, beyond what this one has.
    env: Vec<(String, OsString)>,
    pub(crate) transcript: Arc<Transcript>,
}

impl Place {
    pub(crate) fn new(name: &str, netns: Option<&Path>, transcript: Arc<Transcript>) -> Self {
        Self { name: name.into(), netns: netns.map(Into::into), env: Vec::new(), transcript }
    }

    #[must_use]
    pub fn with_env(&self, key: &str, value: impl Into<OsString>) -> Self {
        let mut place = self.clone();
        place.env.push((key.into(), value.into()));
        place
    }

    pub(crate) fn env(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.env.iter().map(|(key, value)| (key.as_str(), value.as_os_str()))
    }

    /// The inode of the namespace: the same for two places that are one.
    pub fn namespace_id(&self) -> Result<u64> {
        let path = self.netns.as_deref().unwrap_or_else(|| Path::new("/proc/self/ns/net"));
        Ok(fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.ino())
    }

    /// Runs `deed` on a thread of its own inside the namespace.
    pub fn enter<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(path) = &self.netns else { return Ok(deed()) };
        let netns = File::open(path).with_context(|| format!("open namespace {}", path.display()))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                Ok::<_, nix::Error>(deed())
            });
            inside
                .join()
                .map_err(|_| anyhow!("a thread in {} panicked", self.name))?
                .with_context(|| format!("enter {}", path.display()))
        })
    }

    /// A thread that lives in the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        deed: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let open = |path| File::open(path).with_context(|| format!("open namespace {path:?}"));
        let netns = self.netns.as_ref().map(open).transpose()?;
        let inside = move || {
            if let Some(netns) = netns {
                setns(netns, CloneFlags::CLONE_NEWNET).context("enter a namespace")?;
            }
            deed()
        };
        // Loads have them by the hundred.
        std::thread::Builder::new().stack_size(256 << 10).spawn(inside).context("start a thread")
    }

    pub fn listen(&self, at: impl Into<SocketAddr>) -> Result<TcpListener> {
        let at = at.into();
        self.enter(|| TcpListener::bind(at))?.with_context(|| format!("listen on {at} in {}", self.name))
    }

    /// A connection to `to`, in which no read or write may take longer than `PATIENCE`.
    pub fn connect(&self, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let to = to.into();
        let stream = self
            .enter(|| TcpStream::connect_timeout(&to, PATIENCE))
            .map_err(|error| io::Error::other(format!("{error:#}")))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    pub fn udp(&self, at: impl Into<SocketAddr>) -> Result<UdpSocket> {
        let at = at.into();
        self.enter(|| UdpSocket::bind(at))?.with_context(|| format!("bind {at}/udp in {}", self.name))
    }

    pub fn netns(&self) -> Option<&Path> {
        self.netns.as_deref()
    }
}

/// How long a peer in the lab may take for one step before that counts as a failure.
pub const PATIENCE: Duration = Duration::from_secs(5);
