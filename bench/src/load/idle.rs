//! Many connections that say nothing: each has done one request, so that it is through to the container.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netd_tests::Place;
use nix::sys::resource::{Resource, getrlimit};

pub(crate) struct Idle(Vec<TcpStream>);

impl Idle {
    /// `count` connections, or as many as a relay with two descriptors each can hold under this machine's limit.
    pub(crate) fn open(client: &Place, to: SocketAddr, count: usize) -> Result<Self> {
        let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of descriptors")?;
        let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVE) / 2;
        let streams = client.enter(|| {
            let one = |number| open(to).with_context(|| format!("connection {number}"));
            (0..count.min(room)).map(one).collect::<Result<Vec<_>>>()
        })?;
        streams.map(Self)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn open(to: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"HEAD / HTTP/1.1\r\nhost: idle\r\n\r\n")?;
    let mut answer = [0; 1024];
    match stream.read(&mut answer)? {
        0 => bail!("closed instead of answered"),
        _ => Ok(stream),
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// Descriptors of a relay that are not a client's: listeners, pipes, its own.
const RESERVE: usize = 700;
