//! Network namespaces: made, named by a bind mount, entered for as long as one closure runs.
//! A namespace is entered only to make descriptors in it or to write its sysctls; nothing that lives on (a thread, a
//! task, a connection handler) runs inside one. The descriptors keep working from outside.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Doing, KernelError};

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

/// What tells two namespaces apart on one machine until the next boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    pub device: u64,
    pub inode: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, KernelError> {
        Self::open(Path::new(OWN))
    }

    /// Opens what is mounted at `path` and refuses anything that is not a network namespace.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let deed = "open the network namespace";
        // O_NONBLOCK: the path may come from a user and lead to a fifo.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .doing(deed, path.display())?;
        // SAFETY: the descriptor is open; this request takes no argument and writes to no memory.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            let cause = io::Error::new(ErrorKind::InvalidInput, "it is not a network namespace");
            return Err(KernelError::new(deed, path.display(), cause));
        }
        Self::adopt(file).doing(deed, path.display())
    }

    /// Makes a namespace and mounts it on `path`, which must not exist yet; nothing stays behind on failure. The
    /// directory is made as `ip netns` makes it, so that the two see each other's namespaces.
    pub fn create_at(path: &Path) -> Result<Self, KernelError> {
        let made = Self::create(path)?;
        made.bind_at(path)?;
        Ok(made)
    }

    /// Gives this namespace a name: mounts it on `path`, which must not exist yet.
    pub fn bind_at(&self, path: &Path) -> Result<(), KernelError> {
        let deed = "mount the network namespace on";
        if let Some(directory) = path.parent() {
            share(directory)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o444).open(path).doing(deed, path.display())?;
        let source = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let mounted = mount(Some(source.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        if mounted.is_err() {
            // The mount's failure is what the caller must hear of; the empty file is ours alone.
            let _ = fs::remove_file(path);
        }
        mounted.doing(deed, path.display())
    }

    /// Takes the name away; the namespace ends with its last user. Nothing there is no error, but what is neither a
    /// namespace nor the empty file under one is somebody else's and stays.
    pub fn remove_at(path: &Path) -> Result<(), KernelError> {
        for _ in 0..STACKED_MOUNTS {
            if !Self::is_mounted_at(path) {
                break;
            }
            match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                // Somebody else was quicker.
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => return Err(KernelError::new("unmount", path.display(), errno)),
            }
        }
        let removed =
            fs::symlink_metadata(path).and_then(|found| match found.is_file() && found.len() == 0 {
                true => fs::remove_file(path),
                false => Err(io::Error::new(ErrorKind::InvalidInput, "it is not a network namespace")),
            });
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(KernelError::new("remove", path.display(), error))
            }
            _ => Ok(()),
        }
    }

    /// Whether some network namespace is mounted at `path`.
    pub fn is_mounted_at(path: &Path) -> bool {
        Self::open(path).is_ok()
    }

    /// Another handle of the same namespace.
    pub fn try_clone(&self) -> Result<Self, KernelError> {
        let fd = self.fd.try_clone().doing("duplicate the network namespace", self.id)?;
        Ok(Self { fd, id: self.id })
    }

    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// A number that no other namespace has had since the machine started; inodes are given out again.
    pub fn cookie(&self) -> Result<u64, KernelError> {
        self.run(cookie_here)?.doing("tell apart the network namespace", self.id)
    }

    /// Runs `f` inside, on the calling thread, and comes back, also when `f` panics. Only for making descriptors and
    /// for sysctls: `f` must start no thread and keep nothing that remembers where it was made. A thread that cannot
    /// come back would go on in the wrong network, so the process ends instead.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> Result<T, KernelError> {
        let home = Self::current()?;
        setns(&self.fd, CloneFlags::CLONE_NEWNET).doing("enter the network namespace", self.id)?;
        let _back = Return(home);
        Ok(f())
    }

    /// On a thread of its own, so that the caller never leaves its namespace.
    fn create(path: &Path) -> Result<Self, KernelError> {
        let deed = "make the network namespace";
        let maker = thread::Builder::new().name("netns".into()).spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok::<_, io::Error>(Self::current())
        });
        let lost = |_| io::Error::other("its thread ended early");
        maker.and_then(|maker| maker.join().map_err(lost)?).doing(deed, path.display())?
    }

    fn adopt(file: File) -> io::Result<Self> {
        let facts = file.metadata()?;
        let id = NetnsId { device: facts.dev(), inode: facts.ino() };
        Ok(Self { fd: file.into(), id })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Takes the thread home when it goes out of scope, unwinding included.
struct Return(Netns);

impl Drop for Return {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.0.fd, CloneFlags::CLONE_NEWNET) {
            eprintln!("netd: cannot return to the network namespace {}: {errno}", self.0.id);
            std::process::abort();
        }
    }
}

/// Makes the directory a shared mount of its own, as `ip netns add` does: a namespace mounted in it then appears, and
/// goes away, in every mount namespace that has the directory. The lock keeps two makers from stacking mounts.
fn share(directory: &Path) -> Result<(), KernelError> {
    let deed = "prepare the directory";
    fs::create_dir_all(directory).doing(deed, directory.display())?;
    let lock = File::open(directory).doing(deed, directory.display())?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .doing(deed, directory.display())?;
    let make_shared =
        || mount(None::<&str>, directory, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match make_shared() {
        // EINVAL: the directory is not a mount yet.
        Err(Errno::EINVAL) => {
            mount(Some(directory), directory, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .and_then(|()| make_shared())
                .doing(deed, directory.display())
        }
        other => other.doing(deed, directory.display()),
    }
}

fn cookie_here() -> io::Result<u64> {
    let socket = UnixDatagram::unbound()?;
    let (mut cookie, mut size) = (0_u64, size_of::<u64>() as libc::socklen_t);
    let value = (&raw mut cookie).cast();
    // SAFETY: the descriptor is open, and the kernel writes at most the eight bytes that are there.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, &raw mut size)
    };
    if done == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

const OWN: &str = "/proc/thread-self/ns/net";

/// A path can be mounted on more than once; more than this is not ours.
const STACKED_MOUNTS: usize = 8;
