//! BPF: the program that leads connections and datagrams for chosen ports to chosen sockets (`sk_lookup`), those that put
//! a backend's address in the place of a service's ([`eastwest`]), and those that lead packets past a bridge ([`overlay`]). `build.rs` compiles them from `bpf/`, and here they
//! are loaded. aya-obj reads the object files; the few system calls are our own.
//!
//! Nothing is pinned in a file system: maps live as long as the program, the program as long as its link, and the link
//! as long as somebody holds its descriptor.

#[cfg(feature = "bpf")]
mod call;
pub mod eastwest;
#[cfg(feature = "bpf")]
mod load;
#[cfg(feature = "bpf")]
mod object;
pub mod overlay;
#[cfg(not(feature = "bpf"))]
mod without;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::KernelError;
pub use crate::nft::Transport;
#[cfg(not(feature = "bpf"))]
use without as load;

/// A port that is steered; the unspecified address is every address of its family, port 0 every port of the address that
/// is not steered or refused by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Steered {
    pub transport: Transport,
    pub address: IpAddr,
    pub port: u16,
}

/// How many ports can be steered at once, each address of each port counted.
pub const CAPACITY: usize = 131_072;

/// The program, in force in one network namespace.
#[derive(Debug)]
pub struct SkLookup {
    loaded: load::Loaded,
}

impl SkLookup {
    /// In force in the calling thread's namespace, with no port steered. `sockets`: where the ports of a transport and
    /// family go, at most one each; of sockets that share a port, any of them. Whoever steered the same before may go
    /// on meanwhile: of two programs that agree, either decides.
    pub fn attach(sockets: &[(Transport, BorrowedFd<'_>)]) -> Result<Self, KernelError> {
        Ok(Self { loaded: load::Loaded::attach(sockets)? })
    }

    /// Whether this kernel, and this build, can.
    pub fn probe() -> Result<(), KernelError> {
        load::probe()
    }

    /// A port that is steered already stays so.
    pub fn put(&self, port: Steered) -> Result<(), KernelError> {
        self.loaded.put(port)
    }

    /// As if nobody listened there, whoever does: also a port that was steered.
    pub fn refuse(&self, port: Steered) -> Result<(), KernelError> {
        self.loaded.refuse(port)
    }

    /// One that is neither steered nor refused is no error.
    pub fn remove(&self, port: Steered) -> Result<(), KernelError> {
        self.loaded.remove(port)
    }

    /// It is in force as long as this, or a duplicate of it, is open.
    pub fn link(&self) -> BorrowedFd<'_> {
        self.loaded.link.as_fd()
    }
}

impl std::fmt::Display for Steered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{transport}/{}", SocketAddr::new(self.address, self.port))
    }
}
