//! What a client and a backend notice of the relay between them: nothing but the bytes, the ends and the resets.

mod common;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;

use common::{Bed, Noise, Server, connect, read_all};
use netd_proxy::Failure;

#[test]
fn bytes_go_both_ways_at_once_and_unchanged() {
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    // Small ones, sizes around the scratch buffer, and enough to change to splicing and back.
    let sizes = [0, 1, 13, 4096, 65_535, 65_536, 65_537, 131_072, 200_000, 1 << 20, 5_000_001, 24 << 20];
    let relays: Vec<_> = sizes
        .into_iter()
        .enumerate()
        .map(|(seed, size)| {
            thread::spawn(move || {
                let sent = Noise::bytes(seed as u64, size);
                let mut stream = connect(address);
                let mut writing = stream.try_clone().unwrap();
                let expected = sent.clone();
                let writer = thread::spawn(move || {
                    // Pieces of many sizes, so that steps are full and short in turn.
                    let mut rest = &sent[..];
                    let mut piece = 1;
                    while !rest.is_empty() {
                        let (now, later) = rest.split_at(piece.min(rest.len()));
                        writing.write_all(now).unwrap();
                        rest = later;
                        piece = (piece * 7 + 11) % 300_000;
                    }
                    writing.shutdown(Shutdown::Write).unwrap();
                });
                let received = read_all(&mut stream);
                writer.join().unwrap();
                assert_eq!(received.len(), expected.len());
                assert!(received == expected, "{size} bytes came back changed");
            })
        })
        .collect();
    relays.into_iter().for_each(|relay| relay.join().unwrap());
    let counts = bed.settle();
    let total: usize = sizes.iter().sum();
    assert_eq!(counts.accepted, sizes.len() as u64);
    assert_eq!((counts.bytes_to_backend, counts.bytes_to_client), (total as u64, total as u64));
    assert_eq!(counts.failed.iter().sum::<u64>(), 0, "{counts:?}");
}

#[test]
fn a_client_that_has_said_all_still_gets_the_answer() {
    let server = Server::new(|mut stream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question)?;
        stream.write_all(&Noise::bytes(question.len() as u64, 3 << 20))
    });
    let mut bed = Bed::new(&[server.address]);
    let mut client = connect(bed.listen());
    client.write_all(&[7; 1000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client) == Noise::bytes(1000, 3 << 20));
    assert_eq!(bed.settle().failed(Failure::Reset), 0);
}

#[test]
fn a_backend_that_has_said_all_still_hears_the_client() {
    let (heard, hears) = std::sync::mpsc::channel();
    let server = Server::new(move |mut stream| {
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        heard.send(all).map_err(io::Error::other)
    });
    let mut bed = Bed::new(&[server.address]);
    let mut client = connect(bed.listen());
    assert_eq!(read_all(&mut client), b"hello");
    client.write_all(&[1; 100_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hears.recv_timeout(common::PATIENCE).unwrap().len(), 100_000);
    bed.settle();
}

#[test]
fn a_backend_may_speak_first() {
    let server = Server::echo();
    let banner = Server::new(|mut stream| {
        stream.write_all(b"220 ready\r\n")?;
        let mut line = [0; 6];
        stream.read_exact(&mut line)?;
        stream.write_all(&line)
    });
    let mut bed = Bed::new(&[banner.address]);
    let mut client = connect(bed.listen());
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    client.write_all(b"QUIT\r\n").unwrap();
    assert_eq!(read_all(&mut client), b"QUIT\r\n");
    drop(server);
}
