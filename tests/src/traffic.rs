//! Load that checks every byte. A TCP exchange is: seed, length up, length down (8 bytes each), the bytes up, then the
//! bytes down; both directions are a function of the seed and the position, so bytes that are lost, doubled, mixed up
//! or from another connection are all seen.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::place::{PATIENCE, Place};

/// Serves exchanges on `listener` until the process ends.
pub fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE * 4))?;
    let mut head = [0; 24];
    stream.read_exact(&mut head)?;
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let (seed, up, down) = (word(0), word(8), word(16));
    check(&mut stream, seed, up)?;
    send(&mut stream, !seed, down)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// One exchange on a new connection.
pub fn exchange(place: &Place, to: SocketAddr, seed: u64, up: u64, down: u64) -> Result<()> {
    let mut stream = open(place, to, seed, up, down)?;
    check(&mut stream, !seed, down).context("bytes down")?;
    at_end(&mut stream)
}

/// The connection after its bytes up, with the bytes down still to be read.
fn open(place: &Place, to: SocketAddr, seed: u64, up: u64, down: u64) -> Result<TcpStream> {
    let mut stream = place.connect(to).with_context(|| format!("connect to {to}"))?;
    let head = [seed, up, down].map(u64::to_le_bytes).concat();
    stream.write_all(&head).context("send the head")?;
    send(&mut stream, seed, up).context("bytes up")?;
    Ok(stream)
}

fn at_end(stream: &mut TcpStream) -> Result<()> {
    let more = stream.read(&mut [0]).context("wait for the end")?;
    ensure!(more == 0, "bytes after the end");
    Ok(())
}

/// New connections, one after another on each of some threads, until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64>>>,
}

impl Load {
    pub fn start(place: &Place, to: SocketAddr, threads: u64, up: u64, down: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |number: u64| {
            let (place, stop) = (place.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    exchange(&place, to, (number << 32) + done, up, down)
                        .with_context(|| format!("connection {done} of thread {number} to {to}"))?;
                    done += 1;
                }
                Ok(done)
            })
        };
        Self { threads: (0..threads).map(one).collect(), stop }
    }

    /// Ends the load; how many exchanges were done, or the first failure.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("the load panicked"))?).sum()
    }
}

/// One long transfer down on one connection, read at a steady pace so that it lasts, every byte checked.
pub struct Download {
    taken: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Download {
    /// `length` bytes, spread over about `span`.
    pub fn start(place: &Place, to: SocketAddr, length: u64, span: Duration) -> Result<Self> {
        let mut stream = open(place, to, 7, 0, length)?;
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        let pause = span / u32::try_from(length.div_ceil(CHUNK)).context("too long a download")?;
        let thread = std::thread::spawn(move || {
            let mut pattern = Pattern::new(!7);
            while count.load(Ordering::Relaxed) < length {
                let part = CHUNK.min(length - count.load(Ordering::Relaxed));
                pattern.check(&mut stream, part)?;
                count.fetch_add(part, Ordering::Relaxed);
                std::thread::park_timeout(pause);
            }
            at_end(&mut stream)
        });
        Ok(Self { taken, thread })
    }

    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn finish(self) -> Result<()> {
        self.thread.join().map_err(|_| anyhow!("the download panicked"))?.context("download")
    }
}

/// Sends every datagram back to where it came from, until the process ends.
pub fn echo(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // A client that has gone is no reason to stop.
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

/// Sends one datagram from `socket` and wants it back, from the address it was sent to.
pub fn ping(socket: &UdpSocket, to: SocketAddr, seed: u64, length: usize) -> Result<()> {
    socket.set_read_timeout(Some(PATIENCE / 2))?;
    let mut sent = vec![0; length];
    Pattern::new(seed).fill(&mut sent);
    socket.send_to(&sent, to).with_context(|| format!("send {length} bytes to {to}"))?;
    let mut back = vec![0; 65_535];
    let (got, from) =
        socket.recv_from(&mut back).with_context(|| format!("wait for {length} bytes from {to}"))?;
    ensure!(from == to, "the reply came from {from}, not {to}");
    ensure!(back[..got] == sent, "{length} bytes went out, {got} others came back");
    Ok(())
}

/// The bytes of one direction: a pseudo-random sequence that the seed fixes.
pub(crate) struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, word: [0; 8], used: 8 }
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            if self.used == 8 {
                // splitmix64: cheap, and every 8 bytes differ.
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = self.state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                self.word = (mixed ^ (mixed >> 31)).to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }

    fn check(&mut self, from: &mut impl Read, length: u64) -> Result<()> {
        let (mut wanted, mut got) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
        let mut left = length;
        while left > 0 {
            let part = usize::try_from(left.min(CHUNK))?;
            from.read_exact(&mut got[..part])
                .with_context(|| format!("{} of {length} bytes missing", left))?;
            self.fill(&mut wanted[..part]);
            ensure!(got[..part] == wanted[..part], "wrong bytes after {} of {length}", length - left);
            left -= part as u64;
        }
        Ok(())
    }
}

fn check(from: &mut impl Read, seed: u64, length: u64) -> Result<()> {
    Pattern::new(seed).check(from, length)
}

fn send(to: &mut impl Write, seed: u64, length: u64) -> Result<()> {
    let (mut pattern, mut buffer, mut left) = (Pattern::new(seed), vec![0; CHUNK as usize], length);
    while left > 0 {
        let part = usize::try_from(left.min(CHUNK))?;
        pattern.fill(&mut buffer[..part]);
        to.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

const CHUNK: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_changed_byte_is_seen() {
        let mut bytes = vec![0; 100_000];
        Pattern::new(3).fill(&mut bytes);
        Pattern::new(3).check(&mut bytes.as_slice(), 100_000).unwrap();
        bytes[99_999] ^= 1;
        assert!(Pattern::new(3).check(&mut bytes.as_slice(), 100_000).is_err());
        assert!(Pattern::new(4).check(&mut bytes.as_slice(), 10).is_err());
    }
}
