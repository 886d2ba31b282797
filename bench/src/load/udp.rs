//! UDP load and the servers it goes to. The exchange is what an ordinary program does, one system call a datagram on
//! both sides; the bulk is what a QUIC stack does, trains out and trains in. Every datagram is accounted for: answered,
//! or lost.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netd_sys::datagram::{self, MAX_TRAIN, RecvBatch, SendBatch};
use netd_sys::poll::{Events, Interest, Poller};

/// Without an answer for so long, a datagram counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// How often a server looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// `flows` sockets that each keep `outstanding` datagrams of `payload` bytes on their way to an echo server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) to: SocketAddr,
    pub(crate) flows: usize,
    pub(crate) outstanding: usize,
    /// At least 8: each datagram carries its number.
    pub(crate) payload: usize,
    pub(crate) time: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Exchanged {
    pub(crate) answered: u64,
    pub(crate) lost: u64,
    pub(crate) seconds: f64,
    /// From sending to the answer, in microseconds; the last place holds all above.
    latencies: Box<[u32]>,
}

struct Flow {
    socket: UdpSocket,
    next: u64,
    /// What has not come back: its number, and when it was sent.
    on_their_way: VecDeque<(u64, Instant)>,
}

impl Exchange {
    pub(crate) fn run(&self) -> io::Result<Exchanged> {
        let poller = Poller::new()?;
        let mut flows = (0..self.flows).map(|_| Flow::new(self.to)).collect::<io::Result<Vec<_>>>()?;
        let mut buffer = vec![0; self.payload.max(8)];
        for (number, flow) in flows.iter_mut().enumerate() {
            poller.add(&flow.socket, number as u64, Interest::READ)?;
        }
        let mut result =
            Exchanged { answered: 0, lost: 0, seconds: 0.0, latencies: vec![0; 1 << 18].into_boxed_slice() };
        let start = Instant::now();
        flows.iter_mut().for_each(|flow| flow.refill(self.outstanding, &mut buffer));
        let (mut events, mut now, mut next_look) = (Events::with_capacity(64), start, start);
        while now < start + self.time {
            poller.wait(&mut events, Some(LOOK))?;
            now = Instant::now();
            for event in events.iter() {
                let flow = &mut flows[event.token as usize];
                while flow.socket.recv(&mut buffer).is_ok() {
                    if let Some(sent) = flow.take(&buffer) {
                        result.answer(sent.elapsed());
                    }
                    flow.refill(self.outstanding, &mut buffer);
                }
            }
            if now >= next_look {
                next_look = now + LOOK;
                for flow in &mut flows {
                    result.lost += flow.give_up(now);
                    flow.refill(self.outstanding, &mut buffer);
                }
            }
        }
        result.seconds = start.elapsed().as_secs_f64();
        Ok(result)
    }
}

impl Flow {
    fn new(to: SocketAddr) -> io::Result<Self> {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        datagram::enlarge_buffers(&socket)?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        Ok(Self { socket, next: 0, on_their_way: VecDeque::new() })
    }

    fn refill(&mut self, outstanding: usize, buffer: &mut [u8]) {
        while self.on_their_way.len() < outstanding {
            buffer[..8].copy_from_slice(&self.next.to_be_bytes());
            self.on_their_way.push_back((self.next, Instant::now()));
            self.next += 1;
            // A refusal is about an earlier datagram, and a full buffer is loss: both show as a missing answer.
            let _ = self.socket.send(buffer);
        }
    }

    /// When the datagram that came back was sent; `None` when it was given up.
    fn take(&mut self, buffer: &[u8]) -> Option<Instant> {
        let number = buffer.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))?;
        let place = self.on_their_way.binary_search_by_key(&number, |&(number, _)| number).ok()?;
        self.on_their_way.remove(place).map(|(_, sent)| sent)
    }

    /// Counts what has been away for too long.
    fn give_up(&mut self, now: Instant) -> u64 {
        let lost = self.on_their_way.iter().take_while(|(_, sent)| now - *sent > LOST_AFTER).count();
        self.on_their_way.drain(..lost);
        lost as u64
    }
}

impl Exchanged {
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// The latency that `share` of the answers (0 to 1) did not exceed.
    pub(crate) fn latency(&self, share: f64) -> Duration {
        let rank = (self.answered as f64 * share) as u64;
        let mut seen = 0;
        let place = self.latencies.iter().position(|&count| {
            seen += u64::from(count);
            seen > rank
        });
        Duration::from_micros(place.unwrap_or(self.latencies.len()) as u64)
    }

    fn answer(&mut self, took: Duration) {
        let place = (took.as_micros() as usize).min(self.latencies.len() - 1);
        self.latencies[place] += 1;
        self.answered += 1;
    }
}

/// Sends every datagram back until told to stop.
pub(crate) fn echo(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    prepare(socket)?;
    let mut buffer = vec![0; MAX_TRAIN];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // The client may be gone.
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
    Ok(())
}

/// Trains to a [`sink`], at most `window` of them unacknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk {
    pub(crate) to: SocketAddr,
    pub(crate) segment: u16,
    /// Datagrams a train.
    pub(crate) segments: usize,
    pub(crate) window: usize,
    pub(crate) time: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    pub(crate) bytes: u64,
    pub(crate) lost_bytes: u64,
    pub(crate) seconds: f64,
}

impl Bulk {
    /// What QUIC stacks send: 44 datagrams of 1400 bytes at once.
    pub(crate) fn quic_like(to: SocketAddr, time: Duration) -> Self {
        Self { to, segment: 1400, segments: 44, window: 16, time }
    }

    pub(crate) fn run(&self) -> io::Result<Delivered> {
        let socket = Flow::new(self.to)?.socket;
        let poller = Poller::new()?;
        poller.add(&socket, 0, Interest::READ)?;
        let train = vec![0x5a; usize::from(self.segment) * self.segments];
        let (mut batch, mut acks) = (SendBatch::new(self.window), RecvBatch::new(64, 16));
        let mut events = Events::with_capacity(1);
        let (mut sent, mut delivered, mut lost) = (0u64, 0u64, 0u64);
        let start = Instant::now();
        while start.elapsed() < self.time {
            let on_their_way = sent.saturating_sub(delivered + lost) as usize;
            let room = self.window.saturating_sub(on_their_way.div_ceil(train.len()));
            let mut out = batch.begin();
            for _ in 0..room {
                let _ = out.push(None, None, Some(self.segment), &train, 0);
            }
            sent += out.send(socket.as_fd()).bytes as u64;
            poller.wait(&mut events, Some(LOOK))?;
            if events.is_empty() {
                lost = sent - delivered;
            }
            while acks.recv(socket.as_fd()).is_ok() {
                let received = acks.iter().filter_map(|ack| ack.payload.first_chunk().copied());
                delivered = received.map(u64::from_be_bytes).fold(delivered, u64::max);
            }
        }
        Ok(Delivered { bytes: delivered, lost_bytes: lost, seconds: start.elapsed().as_secs_f64() })
    }
}

impl Delivered {
    pub(crate) fn gigabits(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1e9
    }
}

/// Takes what one client after another sends, and tells each how many of its bytes have come so far.
pub(crate) fn sink(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    prepare(socket)?;
    datagram::receive_trains(socket)?;
    socket.set_nonblocking(true)?;
    let poller = Poller::new()?;
    poller.add(socket, 0, Interest::READ)?;
    let (mut events, mut batch) = (Events::with_capacity(1), RecvBatch::new(64, MAX_TRAIN));
    let (mut client, mut received) = (None, 0u64);
    while !stop.load(Ordering::Relaxed) {
        poller.wait(&mut events, Some(LOOK))?;
        while batch.recv(socket.as_fd()).is_ok() {
            for datagram in batch.iter() {
                if client != datagram.source {
                    (client, received) = (datagram.source, 0);
                }
                received += datagram.payload.len() as u64;
            }
            if let Some(client) = client {
                // The client may be gone.
                let _ = socket.send_to(&received.to_be_bytes(), client);
            }
        }
    }
    Ok(())
}

fn prepare(socket: &UdpSocket) -> io::Result<()> {
    datagram::enlarge_buffers(socket)?;
    socket.set_read_timeout(Some(LOOK))
}
