//! The data plane's process, from the outside: starting it with its listening socket, finding it again after a restart
//! of the control plane, waiting for its end, ending it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netd_sys::KernelError;
use netd_sys::process::PidFd;
use netd_sys::seqpacket::Listener;
use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The process, while it runs. Dropping it leaves the process alone.
pub(crate) struct Process {
    handle: AsyncFd<PidFd>,
    /// Set when this process is its parent, which has to collect it.
    child: Option<Child>,
}

/// Where a data plane's socket and pid are kept.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub socket: PathBuf,
    pid: PathBuf,
    /// Empty, and the data plane's whole file system.
    root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("cannot {deed} {}", path.display())]
    File { deed: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot watch the data plane's process")]
    Watch(#[source] io::Error),
}

impl Places {
    /// Of the data plane in service.
    pub(crate) fn in_service(run_dir: &Path) -> Self {
        Self::named(run_dir, "dataplane")
    }

    /// Of one that is being started, until it has answered.
    pub(crate) fn starting(run_dir: &Path) -> Self {
        Self::named(run_dir, "dataplane-next")
    }

    /// Makes the data plane at `self` the one that is found at `place`.
    pub(crate) fn promote(&self, place: &Self) -> Result<(), ProcessError> {
        for (from, to) in [(&self.socket, &place.socket), (&self.pid, &place.pid)] {
            fs::rename(from, to).map_err(|source| file("put in place", to, source))?;
        }
        Ok(())
    }

    /// Removes what names the data plane; it has ended.
    pub(crate) fn clear(&self) {
        for path in [&self.socket, &self.pid] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove");
                }
                _ => {}
            }
        }
        // Made again by the next start.
        let _ = fs::remove_dir(&self.root);
    }

    fn named(run_dir: &Path, name: &str) -> Self {
        Self {
            socket: run_dir.join(format!("{name}.sock")),
            pid: run_dir.join(format!("{name}.pid")),
            root: run_dir.join("empty"),
        }
    }
}

impl Process {
    /// Starts `program` with `arguments`. It inherits the listening socket as its standard input, stderr for its logs,
    /// and nothing else.
    pub(crate) fn spawn(program: &Path, arguments: &[String], places: &Places) -> Result<Self, ProcessError> {
        make_root(&places.root)?;
        let listener = Listener::bind(&places.socket)?;
        let mut command = Command::new(program);
        command.arg0("netd").arg("dataplane").arg("--root").arg(&places.root).args(arguments);
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).current_dir("/").env_clear();
        let mut child = command.spawn().map_err(|source| file("start", program, source))?;
        match Self::note(child.id(), places) {
            Ok(handle) => Self::watch(handle, Some(child)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The process that an earlier control plane started, if it still runs.
    pub(crate) fn find(places: &Places) -> Option<Self> {
        let text = fs::read_to_string(&places.pid).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let handle = PidFd::open(pid.parse().ok()?).ok()?;
        // Compared after the handle was opened: from here on the pid cannot become another process behind our back.
        if start_time(handle.pid()).ok()?.to_string() != started {
            return None;
        }
        Self::watch(handle, None).ok()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.handle.get_ref().pid()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) {
        // An error here would mean that epoll itself is broken; then nothing can be waited for.
        if let Ok(mut ready) = self.handle.ready(Interest::READABLE).await {
            ready.retain_ready();
        }
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            tracing::info!(pid = child.id(), %status, "the data plane's process ended");
            self.child = None;
        }
    }

    /// Waits for its end for `grace`, then kills it.
    pub(crate) async fn end(mut self, grace: Duration) {
        if tokio::time::timeout(grace, self.ended()).await.is_ok() {
            return;
        }
        tracing::warn!(pid = self.pid(), ?grace, "the data plane has not ended: killing it");
        self.kill();
        self.ended().await;
    }

    /// Has it drain and end by itself.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = self.handle.get_ref().signal(signal) {
            tracing::debug!(error = %crate::error::Chain(&error), "the data plane has ended already");
        }
    }

    /// Writes down which process it is, for the next control plane.
    fn note(pid: u32, places: &Places) -> Result<PidFd, ProcessError> {
        let handle = PidFd::open(pid)?;
        let started = start_time(pid).map_err(|source| file("note the start of", &places.pid, source))?;
        fs::write(&places.pid, format!("{pid} {started}\n"))
            .map_err(|source| file("write", &places.pid, source))?;
        Ok(handle)
    }

    fn watch(handle: PidFd, child: Option<Child>) -> Result<Self, ProcessError> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe; a PidFd has one descriptor for life, as it asks"
        )]
        let handle = AsyncFd::with_interest(handle, Interest::READABLE).map_err(ProcessError::Watch)?;
        Ok(Self { handle, child })
    }
}

/// When the process started, in clock ticks since boot: with the pid, it names a process for ever.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may hold anything; the 22nd is the 20th after it.
    let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    field.and_then(|field| field.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn make_root(root: &Path) -> Result<(), ProcessError> {
    match fs::create_dir(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(file("create the directory", root, error))
        }
        _ => Ok(()),
    }
}

fn file(deed: &'static str, path: &Path, source: io::Error) -> ProcessError {
    ProcessError::File { deed, path: path.to_owned(), source }
}
