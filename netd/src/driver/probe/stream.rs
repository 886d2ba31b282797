//! The part of a trial that large packets are made for. A stream leaves in pieces of up to 64 KiB, which a device on the
//! way cuts up and the other end puts together again; where that goes wrong inside of tunnels, pings and names work
//! and every download hangs. A node that listens for datagrams alone, as earlier versions do, refuses at once: what it
//! would take is not known, and taken for well.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netd_sys::socket;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::{NONCE, PORT, UNANSWERED, address};

/// More than the first flight of a connection, in pieces that no device takes whole.
const LENGTH: usize = 256 << 10;
/// For all of it, on a sound way some milliseconds. One piece that is lost and sent again costs 200 ms.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Between two looks whether it is still wanted, in seconds.
const LOOKS: i64 = 10;

/// Whether all of a stream arrives.
pub(super) fn ask(to: SocketAddrV6, nonce: [u8; NONCE]) -> io::Result<bool> {
    let end = Instant::now() + PATIENCE;
    let stream = match TcpStream::connect_timeout(&SocketAddr::V6(to), PATIENCE) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
        Err(error) if is_silence(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let heard = said(&stream, nonce, end).and_then(|()| answered(&stream, end));
    // What is still on its way need not be sent again and again.
    socket::reset(stream);
    match heard {
        Ok(heard) => Ok(heard == nonce),
        Err(error) if is_silence(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn said(mut stream: &TcpStream, nonce: [u8; NONCE], end: Instant) -> io::Result<()> {
    let mut all = nonce.to_vec();
    all.resize(LENGTH, 0);
    let mut rest = &all[..];
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        let sent = stream.write(rest)?;
        rest = &rest[sent..];
    }
    Ok(())
}

fn answered(mut stream: &TcpStream, end: Instant) -> io::Result<[u8; NONCE]> {
    let mut heard = [0; NONCE];
    stream.set_read_timeout(Some(left(end)?))?;
    stream.read_exact(&mut heard)?;
    Ok(heard)
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | UnexpectedEof | ConnectionReset)
        || error.raw_os_error().is_some_and(|errno| UNANSWERED.contains(&errno))
}

/// Takes streams to their end, one after another, on the probe's device, and says back how they began; until told.
pub(crate) fn take(device: u32, own: u16, stop: &AtomicBool) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddrV6::new(address(own), PORT, 0, device))?;
    setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::new(LOOKS, 0))?;
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                // What another node breaks off, or never ends, is its own failure.
                let _ = taken(&stream);
                socket::reset(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn taken(mut stream: &TcpStream) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let (mut nonce, mut heard, mut buffer) = ([0; NONCE], 0, vec![0; 1 << 16]);
    while heard < LENGTH {
        stream.set_read_timeout(Some(left(end)?))?;
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let begin = heard.min(NONCE);
        let part = got.min(NONCE - begin);
        nonce[begin..begin + part].copy_from_slice(&buffer[..part]);
        heard += got;
    }
    stream.set_write_timeout(Some(left(end)?))?;
    stream.write_all(&nonce)?;
    // The other end closes when it has heard it.
    stream.set_read_timeout(Some(left(end)?))?;
    stream.read(&mut buffer).map(drop)
}
