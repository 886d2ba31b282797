//! Records that are larger than a packet of the link.

use std::net::SocketAddrV4;

use super::*;

const MANY: usize = 10_000;

/// The port's service with so many backends, of which only the last takes connections.
fn crowded(port: &Port, backends: usize) -> Vec<Change> {
    let mut changes = port.changes();
    let Change::Proxy(Proxy::PutService(service)) = &mut changes[0] else { panic!("a service comes first") };
    let last = service.backends.remove(0);
    service.backends = (1..backends)
        .map(|number| Backend {
            id: format!("{number:064x}").into(),
            v4: Some(SocketAddrV4::new([127, 1, (number >> 8) as u8, number as u8].into(), 9)),
            v6: Some(format!("[2001:db8:1234:5678::{number:x}]:9").parse().unwrap()),
            state: BackendState::Failing,
            ..last.clone()
        })
        .collect();
    service.backends.push(last);
    changes
}

#[tokio::test]
async fn a_service_of_ten_thousand_backends_is_served_whole_as_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&dir);
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    let port = Port::open(echo_server().await);
    let changes = crowded(&port, MANY);
    assert!(serde_json::to_vec(&changes[0]).unwrap().len() > 1 << 20, "it is larger than a packet");
    control.serve(&session, Batch { revision: 1, full: true, changes, sockets: vec![port.sockets()] }).await;
    assert!(echoes(&mut TcpStream::connect(port.address).await.unwrap()).await);
    let stats = control.plane.stats().await.unwrap();
    assert_eq!(stats.services[0].backends.len(), MANY);

    // Another size of it, between two small changes of the same revision.
    let (mut names, sockets, server) = view();
    names.extend(crowded(&port, MANY / 2));
    let batch = Batch { revision: 2, full: false, changes: names, sockets: vec![sockets] };
    control.serve(&session, batch).await;
    assert_eq!(resolve(server).await, [10, 1, 2, 3]);
    assert!(echoes(&mut TcpStream::connect(port.address).await.unwrap()).await);
    assert_eq!(control.plane.stats().await.unwrap().services[0].backends.len(), MANY / 2);
}

#[tokio::test]
async fn what_nobody_could_take_is_left_out_and_keeps_nothing_else_back() {
    let dir = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&dir);
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    let port = Port::open(echo_server().await);
    let name = Name { name: "n".repeat(pieces::MAX_MESSAGE).into(), ..Name::default() };
    let mut changes = vec![Change::Dns(Dns::PutName { zone: "net".into(), name })];
    changes.extend(port.changes());
    control.serve(&session, Batch { revision: 1, full: true, changes, sockets: vec![port.sockets()] }).await;
    assert!(echoes(&mut TcpStream::connect(port.address).await.unwrap()).await);
}

#[tokio::test]
async fn pieces_that_are_broken_off_end_the_link_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&dir);
    let path = Places::in_service(dir.path()).socket;
    let stop = br#"[{"type":"stop"}]"#;
    for second in [&stop[..], b".\xff", b"."] {
        let peer = seqpacket::Connection::connect(&path).unwrap();
        for packet in [&b"+[{"[..], second] {
            peer.send(packet, &[] as &[OwnedFd]).unwrap();
        }
        let closed = tokio::task::spawn_blocking(move || {
            let mut fds = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()).unwrap();
            peer.recv(&mut [0; 64]).unwrap().length == 0
        });
        assert!(closed.await.unwrap(), "{second:?}");
    }
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    control.serve(&session, Batch { revision: 1, full: true, ..Batch::default() }).await;
}
