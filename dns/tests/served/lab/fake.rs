//! Upstream servers of the tests: one thread each, UDP and TCP on one port, every query answered by a closure.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record};

/// What arrived and how.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) message: Message,
    pub(crate) by_tcp: bool,
    pub(crate) from: SocketAddr,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

/// The messages to send back, in order, from this server's own address.
pub(crate) type Replies = Vec<Vec<u8>>;

impl Fake {
    pub(crate) fn start(reply: impl Fn(&Asked) -> Replies + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", reply)
    }

    pub(crate) fn start_at(address: &str, reply: impl Fn(&Asked) -> Replies + Send + Sync + 'static) -> Self {
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let tcp = TcpListener::bind((address, 0)).ok()?;
                Some((UdpSocket::bind(tcp.local_addr().ok()?).ok()?, tcp))
            })
            .expect("a port for both protocols");
        let address = tcp.local_addr().expect("bound");
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let reply = Arc::new(reply);
        // The only use of time here: to notice the end of the test.
        udp.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        {
            let (asked, stop, reply) = (asked.clone(), stop.clone(), reply.clone());
            thread::spawn(move || serve_udp(&udp, &stop, &asked, &*reply));
        }
        {
            let asked = asked.clone();
            let stop = stop.clone();
            thread::spawn(move || serve_tcp(&tcp, &stop, &asked, &*reply));
        }
        Self { address, asked, stop }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic in the server").clone()
    }

    /// Answers every question with this address.
    pub(crate) fn steady(address: [u8; 4]) -> Self {
        Self::start(move |asked| vec![encode(&with_address(&asked.message, address, 300))])
    }

    /// Takes every question and answers none.
    pub(crate) fn silent() -> Self {
        Self::start(|_| Vec::new())
    }

    pub(crate) fn failing(code: ResponseCode) -> Self {
        Self::start(move |asked| {
            let mut reply = reply_to(&asked.message);
            reply.metadata.response_code = code;
            vec![encode(&reply)]
        })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(std::net::TcpStream::connect(self.address));
    }
}

fn serve_udp(
    socket: &UdpSocket,
    stop: &AtomicBool,
    log: &Mutex<Vec<Asked>>,
    reply: &(dyn Fn(&Asked) -> Replies + Send + Sync),
) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let message = Message::from_vec(&buffer[..length]).expect("the server under test asks properly");
        let asked = Asked { message, by_tcp: false, from };
        log.lock().expect("no panic").push(asked.clone());
        for message in reply(&asked) {
            socket.send_to(&message, from).expect("sent");
        }
    }
}

fn serve_tcp(
    listener: &TcpListener,
    stop: &AtomicBool,
    log: &Mutex<Vec<Asked>>,
    reply: &(dyn Fn(&Asked) -> Replies + Send + Sync),
) {
    while let Ok((mut stream, from)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).expect("a whole message");
        let message = Message::from_vec(&message).expect("the server under test asks properly");
        let asked = Asked { message, by_tcp: true, from };
        log.lock().expect("no panic").push(asked.clone());
        for message in reply(&asked) {
            let length = u16::try_from(message.len()).expect("a message");
            stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).expect("sent");
        }
    }
}

pub(crate) fn reply_to(query: &Message) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(query.queries[0].clone());
    if let Some(edns) = &query.edns {
        reply.set_edns(edns.clone());
    }
    reply
}

pub(crate) fn with_address(query: &Message, address: [u8; 4], ttl: u32) -> Message {
    let mut reply = reply_to(query);
    let name = query.queries[0].name().clone();
    let [a, b, c, d] = address;
    reply.add_answer(Record::from_rdata(name, ttl, RData::A(A::new(a, b, c, d))));
    reply
}

pub(crate) fn nxdomain(query: &Message, minimum: u32) -> Message {
    let mut reply = reply_to(query);
    reply.metadata.response_code = ResponseCode::NXDomain;
    let zone: Name = "example.".parse().expect("a name");
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, minimum);
    reply.add_authority(Record::from_rdata(zone, 600, RData::SOA(soa)));
    reply
}

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().expect("it can be encoded")
}

/// Counts up with every call, for replies that differ.
pub(crate) fn counter() -> impl Fn() -> usize + Send + Sync {
    let count = AtomicUsize::new(0);
    move || count.fetch_add(1, Ordering::Relaxed)
}
