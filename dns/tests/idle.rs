//! A server with nothing to do does nothing. In a program of its own: the thread is found by its name.

use std::fs;
use std::net::UdpSocket;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use netd_dns::table::{Change, Forward, SocketUse, View};
use netd_dns::{Config, Server};

/// How often the DNS thread has gone to sleep.
fn naps() -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("proc is mounted");
    let status = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .find(|status| status.starts_with("Name:\tdns\n"))
        .expect("the server's thread is called dns");
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).expect("a number")
}

#[test]
fn an_idle_server_sleeps() {
    let server = Server::start(Config::default()).expect("it starts");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    udp.set_nonblocking(true).expect("nonblocking");
    let address = udp.local_addr().expect("bound");
    let view = View {
        id: "v".into(),
        zones: Vec::new(),
        names: Vec::new(),
        forward: Forward::Never,
        single_labels_are_local: false,
    };
    let (done, applied) = channel();
    let sockets = vec![("v".into(), SocketUse::Udp, udp.into())];
    server
        .apply(vec![Change::PutView(view)], sockets, move |outcome| drop(done.send(outcome)))
        .expect("it runs");
    applied.recv().expect("applied").expect("served");

    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    client.connect(address).expect("connected");
    for _ in 0..100 {
        client.send(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01").expect("sent");
        client.recv(&mut [0; 512]).expect("answered");
    }
    // It stops looking for more queries soon after the last; then it stays asleep for as long as anybody watches.
    let deadline = Instant::now() + Duration::from_secs(10);
    let (_never, nothing) = channel::<()>();
    loop {
        let before = naps();
        assert_eq!(nothing.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
        if naps() == before {
            return;
        }
        assert!(Instant::now() < deadline, "the idle thread keeps waking up");
    }
}
