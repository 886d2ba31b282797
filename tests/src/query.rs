//! DNS as a client inside a sandbox sees it: single questions, and a loop that misses no silence.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::place::{PATIENCE, Place};

/// Where every sandbox on a network with names finds its server.
pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11)), 53);

/// A client socket in a sandbox.
pub struct Resolver(UdpSocket);

impl Resolver {
    pub fn new(place: &Place) -> Result<Self> {
        let socket = place.udp(([127, 0, 0, 1], 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// One question without EDNS and its answer.
    pub fn ask(&self, name: &str, kind: RecordType) -> Result<Message> {
        self.exchange(&question(name, kind)?)
    }

    pub fn ask_edns(&self, name: &str, kind: RecordType, payload: u16) -> Result<Message> {
        let mut message = question(name, kind)?;
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
        self.exchange(&message)
    }

    pub fn exchange(&self, question: &Message) -> Result<Message> {
        let bytes = self.exchange_bytes(&question.to_vec()?)?;
        let answer = Message::from_vec(&bytes)?;
        ensure!(answer.metadata.id == question.metadata.id, "answer to another question: {answer:?}");
        Ok(answer)
    }

    /// Any bytes as a question; the next datagram as the answer.
    pub fn exchange_bytes(&self, question: &[u8]) -> Result<Vec<u8>> {
        self.send_bytes(question)?;
        let mut buffer = vec![0; 65_535];
        let (length, from) = self.0.recv_from(&mut buffer).context("wait for the answer")?;
        ensure!(from == SERVER, "the answer came from {from}");
        buffer.truncate(length);
        Ok(buffer)
    }

    pub fn send_bytes(&self, question: &[u8]) -> Result<()> {
        self.0.send_to(question, SERVER).context("send a question")?;
        Ok(())
    }

    /// The addresses that `name` has, in the order given.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        let answer = self.ask(name, RecordType::A)?;
        ensure!(answer.metadata.response_code == ResponseCode::NoError, "{name}: {answer:?}");
        Ok(addresses(&answer))
    }
}

/// The addresses in an answer, in its order.
pub fn addresses(answer: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(v4) => Some(IpAddr::V4(v4.0)),
        RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

pub fn question(name: &str, kind: RecordType) -> Result<Message> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).with_context(|| format!("{name:?} as a name"))?;
    message.add_query(Query::query(name, kind));
    Ok(message)
}

/// Asks for one name's address over and over, one question at a time, and never twice: an answer that does not come is a failure.
pub struct Loop {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Answers>>,
}

#[derive(Debug, Default)]
pub struct Answers {
    pub answered: u64,
    pub slowest: Duration,
}

impl Loop {
    pub fn start(place: &Place, name: &str) -> Result<Self> {
        let resolver = Resolver::new(place)?;
        resolver.0.set_read_timeout(Some(SILENCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (Arc::clone(&stop), name.to_owned());
        let thread = std::thread::spawn(move || {
            let (started, mut answers) = (Instant::now(), Answers::default());
            loop {
                let last = stopped.load(Ordering::Relaxed);
                let asked = Instant::now();
                let found = resolver.addresses(&name);
                let found = found
                    .with_context(|| format!("{:?} after the first, and {answers:?}", asked - started))?;
                ensure!(!found.is_empty(), "{name} has no address, {:?} after the first", asked - started);
                answers.answered += 1;
                answers.slowest = answers.slowest.max(asked.elapsed());
                if last {
                    return Ok(answers);
                }
            }
        });
        Ok(Self { stop, thread })
    }

    /// Asks once more and ends the loop; an error if any question went without its answer.
    pub fn finish(self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the DNS loop panicked"))?
    }
}

/// What a program's resolver waits before it asks again. An answer that is lost never comes, one that a busy machine is late
/// with does.
const SILENCE: Duration = Duration::from_secs(5);
