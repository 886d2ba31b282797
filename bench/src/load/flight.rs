//! Thousands of DNS questions on their way at once, each for another name, and how long each took.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_sys::poll::{Events, Interest, Poller};
use netd_tests::Place;

use crate::load::question::{Asked, encode, has_address, identity};

struct Socket {
    socket: UdpSocket,
    /// When the question with this place as its id was sent, until its answer comes.
    sent: Vec<Option<Instant>>,
}

/// Sends all questions as fast as the socket takes them, then waits for what is missing.
pub(crate) fn run(client: &Place, server: SocketAddr, names: &[String]) -> Result<Asked> {
    let poller = Poller::new()?;
    let mut sockets = Vec::new();
    for number in 0..names.len().div_ceil(EACH) {
        let socket = client.udp(([0, 0, 0, 0], 0))?;
        netd_sys::datagram::enlarge_buffers(&socket)?;
        socket.set_nonblocking(true)?;
        socket.connect(server).with_context(|| format!("connect to {server}"))?;
        poller.add(&socket, number as u64, Interest::READ)?;
        sockets.push(Socket { socket, sent: Vec::with_capacity(EACH) });
    }
    let (mut asked, start, mut message) = (Asked::default(), Instant::now(), Vec::new());
    for (number, some) in names.chunks(EACH).enumerate() {
        for (id, name) in (0..=u16::MAX).zip(some) {
            encode(&mut message, id, name);
            sockets[number].sent.push(Some(Instant::now()));
            // A full buffer is loss, which shows as a missing answer.
            let _ = sockets[number].socket.send(&message);
        }
        sockets.iter_mut().for_each(|socket| socket.take(&mut asked));
    }
    let mut events = Events::with_capacity(64);
    while asked.latencies.len() + (asked.failed as usize) < names.len() && start.elapsed() < PATIENCE {
        poller.wait(&mut events, Some(Duration::from_millis(50)))?;
        for event in events.iter() {
            sockets[event.token as usize].take(&mut asked);
        }
    }
    asked.failed = (names.len() - asked.latencies.len()) as u64;
    asked.seconds = start.elapsed().as_secs_f64();
    ensure!(!asked.latencies.is_empty(), "{server} answers nothing");
    Ok(asked)
}

impl Socket {
    fn take(&mut self, asked: &mut Asked) {
        let mut answer = [0; 512];
        while let Ok(length) = self.socket.recv(&mut answer) {
            let answer = &answer[..length];
            let place = identity(answer).and_then(|id| self.sent.get_mut(usize::from(id)));
            if let Some(sent) = place.and_then(Option::take) {
                match has_address(answer) {
                    true => asked.latencies.push(sent.elapsed()),
                    false => asked.failed += 1,
                }
            }
        }
    }
}

/// Questions a socket.
const EACH: usize = 500;
/// Longer than any resolver library waits for a first answer.
const PATIENCE: Duration = Duration::from_secs(6);
