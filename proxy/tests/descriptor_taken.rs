//! A connection is accepted, and then the descriptor that was held back for its backend is of no use: the client waits
//! and is served. The limit is the process's, so this test is alone in its file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{Bed, Server, connect, eventually};
use netd_proxy::Config;
use netd_sys::poll::spare_descriptor;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Above what the test and the proxy have open themselves.
const LIMIT: u64 = 200;

#[test]
fn a_client_whose_descriptor_was_taken_is_served_later() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let echo = Server::echo();
    let mut bed = Bed::with(&[echo.address], &Config { workers: 1, ..Config::default() });
    let address = bed.listen();
    // What the proxy holds back from now on has a number above the limit to come: giving it up gains nothing, as when
    // another thread is quicker.
    let low: Vec<_> = std::iter::repeat_with(|| spare_descriptor().unwrap())
        .take_while(|descriptor| (descriptor.as_raw_fd() as u64) < LIMIT)
        .collect();
    let mut first = connect(address);
    exchange(&mut first);
    drop(low);
    let second = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).unwrap();
    let mut all: Vec<_> = std::iter::from_fn(|| spare_descriptor().ok()).collect();
    // For the client, but not for its backend.
    all.pop();
    second.connect(&address.into()).unwrap();
    eventually("it is accepted", || (bed.counts().accepted == 2).then_some(()));
    drop(all);
    let mut second = std::net::TcpStream::from(second);
    second.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    exchange(&mut second);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    drop((first, second));
    let counts = bed.settle();
    assert_eq!(counts.failed.iter().sum::<u64>(), 0, "{counts:?}");
}

fn exchange(client: &mut std::net::TcpStream) {
    client.write_all(b"here?").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"here?");
}
