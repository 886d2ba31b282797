//! What is refused is refused at once, and not swallowed: a reset for TCP, "port unreachable" for UDP.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::eventually::eventually;
use crate::place::{PATIENCE, Place};

/// A SYN that nobody answers is repeated after a second. What is refused sooner was refused by the answer to the first,
/// however busy the machine is; what was dropped, and refused when it came again, is not.
const FIRST_REPEAT: Duration = Duration::from_secs(1);

/// No connection is made.
pub fn of_tcp(from: &Place, to: impl Into<SocketAddr>) -> Result<()> {
    let to = to.into();
    let begun = Instant::now();
    let error = from.connect(to).err().with_context(|| format!("{to} is served"))?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{to}: {error}");
    ensure!(begun.elapsed() < FIRST_REPEAT, "{to} was refused after {:?}", begun.elapsed());
    Ok(())
}

/// The sender is told. A datagram may get lost while a neighbour's address is found, and hosts send such answers sparingly.
pub fn of_udp(from: &Place, to: impl Into<SocketAddr>) -> Result<()> {
    let to = to.into();
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = from.udp((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    eventually(PATIENCE, &format!("{to}/udp is refused to {}", from.name), || {
        let answer = socket.send(b"anybody?").and_then(|_| socket.recv(&mut [0; 64]));
        let error = answer.err().context("it is served")?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
        Ok(())
    })
}
