//! A socket that the runtime watches for reading only. Watched for writing too, as the runtime's own UDP socket is, it
//! would wake this thread for every answer that a client takes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

pub(crate) struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// An error alone (nobody listens where a datagram went) does not count as something to read.
    const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

    #[expect(
        deprecated,
        reason = "deprecated for types that can change their descriptor; an OwnedFd cannot, and the successor is unsafe"
    )]
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        AsyncFd::with_interest(socket, Self::INTEREST).map(Self)
    }

    /// Waits until there is something to read, or an error to take.
    pub(crate) async fn ready(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.ready(Self::INTEREST).await
    }

    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.get_ref().try_clone()
    }
}

impl AsFd for Readable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
