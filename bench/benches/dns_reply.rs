//! The DNS server's short path: a question for a local name among a thousand, and 64 of them in one wake-up, over
//! loopback sockets. The kernel's share is in it, as it is in the macro figures.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netd_dns::table::{Change, Forward, Name, SocketUse, View, ViewZone};
use netd_dns::{Config, Server};

fn replies(c: &mut Criterion) {
    let (_server, client) = serve(1_000);
    let question = question("n500");
    let mut answer = [0; 512];
    let mut group = c.benchmark_group("dns reply");
    for burst in [1_u64, 64] {
        group.throughput(Throughput::Elements(burst));
        group.bench_function(format!("burst of {burst}"), |bencher| {
            bencher.iter(|| {
                for _ in 0..burst {
                    client.send(&question).expect("loopback works");
                }
                for _ in 0..burst {
                    let length = client.recv(&mut answer).expect("loopback works");
                    assert!(length > question.len(), "an answer has a record");
                }
            });
        });
    }
    group.finish();
}

/// A server with one view over `names` names, and a socket connected to it.
fn serve(names: u32) -> (Server, UdpSocket) {
    let server = Server::start(Config::default()).expect("loopback works");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    client.connect(socket.local_addr().expect("loopback works")).expect("loopback works");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("loopback works");
    socket.set_nonblocking(true).expect("loopback works");
    let zones = vec![ViewZone { zone: "z".into(), suffix: "shop".into() }];
    let view = View {
        id: "v".into(),
        zones,
        names: Vec::new(),
        forward: Forward::Never,
        single_labels_are_local: false,
    };
    let mut changes = vec![Change::PutView(view)];
    changes.extend((0..names).map(|number| {
        let address = Ipv4Addr::from(0x0a00_0000 + number).into();
        let name = Name {
            name: format!("n{number}").into(),
            addresses: vec![address],
            primary_for: vec![address],
            ..Name::default()
        };
        Change::PutName { zone: "z".into(), name }
    }));
    let (done, applied) = channel();
    let sockets = vec![("v".into(), SocketUse::Udp, socket.into())];
    server
        .apply(changes, sockets, move |outcome| done.send(outcome).expect("loopback works"))
        .expect("loopback works");
    applied.recv().expect("loopback works").expect("loopback works");
    (server, client)
}

/// For the IPv4 address of one label.
fn question(label: &str) -> Vec<u8> {
    let head = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(label.len()).expect("loopback works")];
    [&head[..], label.as_bytes(), &[0, 0, 1, 0, 1]].concat()
}

criterion_group!(benches, replies);
criterion_main!(benches);
