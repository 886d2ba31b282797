//! DNS over TCP with clients good and bad.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::RecordType;
use netd_dns::table::{Change, Forward};
use netd_dns::{Config, TcpLimits};

use crate::lab::fake::{Fake, encode, with_address};
use crate::lab::{Lab, SOON, name, put, view};

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.parse().expect("a name"), RecordType::A));
    let message = encode(&message);
    let length = u16::try_from(message.len()).expect("a short message");
    [&length.to_be_bytes()[..], &message].concat()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream
}

fn answer(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(Message::from_vec(&message).expect("hickory reads it"))
}

fn closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn lab(tcp: TcpLimits) -> Lab {
    let config = Config { tcp, ..Config::default() };
    Lab::start(config, view(Forward::Never), vec![put("z", name("web", &["10.0.0.2"]))])
}

#[test]
fn many_queries_on_one_connection_are_all_answered() {
    let lab = lab(TcpLimits::default());
    let mut stream = connect(lab.address);
    let all: Vec<u8> = (0..2000).flat_map(|id| query(id, "web.")).collect();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        // In pieces that end in the middle of messages.
        all.chunks(777).for_each(|piece| writer.write_all(piece).unwrap());
    });
    for id in 0..2000 {
        let answer = answer(&mut stream).unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len()), (id, 1));
    }
    writing.join().unwrap();
}

#[test]
fn a_quick_answer_does_not_wait_for_a_slow_one_and_none_is_lost_at_the_end() {
    let upstream = Fake::start(|asked| {
        // Long enough that the local answer must come first, short enough for no other try.
        let wait = Instant::now() + Duration::from_millis(60);
        while Instant::now() < wait {
            std::thread::yield_now();
        }
        vec![encode(&with_address(&asked.message, [192, 0, 2, 1], 60))]
    });
    let servers = vec![upstream.address];
    let changes = vec![put("z", name("web", &["10.0.0.2"])), Change::PutHostServers { servers }];
    let lab = Lab::start(Config::default(), view(Forward::Host), changes);
    let mut stream = connect(lab.address);
    stream.write_all(&[query(1, "www.example."), query(2, "web.")].concat()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let ids: Vec<u16> = (0..2).map(|_| answer(&mut stream).unwrap().metadata.id).collect();
    assert_eq!(ids, [2, 1]);
    assert!(closed(&mut stream));
}

#[test]
fn more_connections_than_allowed_are_closed_and_others_served() {
    let lab = lab(TcpLimits { connections_per_view: 3, ..TcpLimits::default() });
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(lab.address)).collect();
    for stream in &mut held {
        stream.write_all(&query(7, "web.")).unwrap();
        answer(stream).unwrap();
    }
    assert!(closed(&mut connect(lab.address)));
    assert_eq!(lab.server.stats().tcp_refused, 1);
    assert_eq!(lab.dig("web A").answers.len(), 1, "UDP is not affected");
    drop(held.pop());
    // The place is free when the server has seen the end of the connection.
    let deadline = Instant::now() + SOON;
    loop {
        let mut stream = connect(lab.address);
        let sent = stream.write_all(&query(8, "web."));
        if sent.and_then(|()| answer(&mut stream)).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "the place of a closed connection is never free");
    }
}

#[test]
fn a_client_that_trickles_or_idles_is_let_go() {
    let short = Duration::from_millis(200);
    let lab = lab(TcpLimits { idle: short, patience: short, ..TcpLimits::default() });
    let began = Instant::now();
    let mut idle = connect(lab.address);
    let mut slow = connect(lab.address);
    let mut writer = slow.try_clone().unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    for byte in query(1, "web.").iter().cycle() {
        drop(writer.write_all(&[*byte]));
        match slow.read(&mut [0; 16]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => break,
        }
        assert!(began.elapsed() < SOON, "a byte at a time holds a connection for ever");
    }
    assert!(closed(&mut idle));
}

#[test]
fn nonsense_ends_the_connection_only() {
    let lab = lab(TcpLimits::default());
    let mut stream = connect(lab.address);
    stream.write_all(&[0, 3, 1, 2, 3]).unwrap();
    assert!(closed(&mut stream));
    assert_eq!(lab.dig("web A +tcp").answers.len(), 1);
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let lab = lab(TcpLimits { idle: 10 * SOON, ..TcpLimits::default() });
    let mut stream = connect(lab.address);
    stream.write_all(&query(1, "web.")).unwrap();
    answer(&mut stream).unwrap();
    let began = Instant::now();
    lab.server.drain(10 * SOON);
    assert!(began.elapsed() < SOON, "it waited for a client that wants nothing");
    assert!(closed(&mut stream));
}
