//! Many connections at once, on few threads.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use common::{Bed, Noise, Server, connect};

const CONNECTIONS: usize = 2000;

#[test]
fn two_thousand_connections_at_once_are_all_served() {
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(limit).unwrap();
    nix::sys::resource::setrlimit(limit, hard, hard).unwrap();
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(address)).collect();
    for round in 0..3u64 {
        let exchange = |(number, client): (usize, &mut TcpStream)| {
            let size = 1 + (number * 37) % 9000;
            let words = Noise::bytes(number as u64 + round, size);
            client.write_all(&words).unwrap();
            let mut echo = vec![0; size];
            client.read_exact(&mut echo).unwrap();
            assert!(echo == words);
        };
        thread::scope(|scope| {
            for part in clients.chunks_mut(CONNECTIONS / 8) {
                scope.spawn(move || part.iter_mut().enumerate().for_each(exchange));
            }
        });
    }
    assert_eq!(bed.counts().open, CONNECTIONS as u64);
    drop(clients);
    let counts = bed.settle();
    assert_eq!(counts.accepted, CONNECTIONS as u64);
    assert_eq!(counts.failed.iter().sum::<u64>(), 0);
}
