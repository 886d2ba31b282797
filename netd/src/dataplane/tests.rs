//! Both sides in one process: real sockets, real servers, the real link; the worker's main loop runs on a thread.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use netd_dns::table::{Change as Dns, Forward, Name, SocketUse as ViewUse, View, ViewZone};
use netd_proxy::table::{
    Backend, BackendState, Change as Proxy, Check, Listener, Place, Policy, Probe, Protocol, Service, Source,
};
use netd_sys::seqpacket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

use super::frame::{Packer, Request};
use super::plane::{Plane, Settings};
use super::process::Places;
use super::*;
use crate::tables::Change;

mod large;

const LIMIT: Duration = Duration::from_secs(10);

/// A data plane that was not started by the control plane, as one that is a unit of its own.
struct Worker(Option<JoinHandle<()>>);

impl Worker {
    fn start(dir: &TempDir) -> Self {
        let listener = seqpacket::Listener::bind(&Places::in_service(dir.path()).socket).unwrap();
        let plane =
            Plane::start(&Settings { workers: 2, spin: Duration::ZERO, max_connections: 100 }).unwrap();
        let user = nix::unistd::getuid().as_raw();
        let run = move || {
            let drain = Duration::from_millis(100);
            worker::serve::Worker::new(plane, listener, SigSet::empty(), "build".into(), user, drain)
                .unwrap()
                .run()
                .unwrap();
        };
        Self(Some(std::thread::spawn(run)))
    }

    async fn ended(mut self) {
        let thread = self.0.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    }
}

/// A control plane that keeps what it hears.
struct Control {
    plane: DataPlane,
    events: mpsc::UnboundedReceiver<Event>,
}

struct Connected {
    session: Session,
    revision: u64,
    inventory: Vec<Sockets>,
}

impl Control {
    fn start(dir: &TempDir) -> Self {
        let config = Config {
            run_dir: dir.path().to_owned(),
            program: "/bin/false".into(),
            arguments: Vec::new(),
            build: "build".into(),
            drain: Duration::from_millis(100),
        };
        let (sender, events) = mpsc::unbounded_channel();
        let plane = DataPlane::start(config, move |event| {
            let _ = sender.send(event);
        });
        Self { plane, events }
    }

    async fn next(&mut self) -> Event {
        tokio::time::timeout(LIMIT, self.events.recv()).await.unwrap().unwrap()
    }

    async fn connected(&mut self) -> Connected {
        match self.next().await {
            Event::Connected { session, revision, inventory } => Connected { session, revision, inventory },
            Event::Refused { error, .. } => panic!("refused: {error}"),
            Event::NeedSockets { key, .. } => panic!("sockets for {key} are needed"),
            Event::Health { backend, .. } => panic!("{backend} was asked"),
        }
    }

    async fn serve(&self, session: &Session, batch: Batch) {
        let revision = batch.revision;
        session.apply(batch).unwrap();
        self.plane.served(revision, LIMIT).await.unwrap();
    }
}

/// A server that sends back what it gets.
async fn echo_server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..length]).await.unwrap();
                }
            });
        }
    });
    address
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    let exchange = async {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut answer).await
    };
    tokio::time::timeout(LIMIT, exchange).await.unwrap().is_ok() && &answer == b"ping"
}

/// A published port: the socket, and the changes that serve it.
struct Port {
    socket: TcpListener,
    address: SocketAddr,
    backend: SocketAddr,
}

impl Port {
    fn open(backend: SocketAddr) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { address: socket.local_addr().unwrap(), socket, backend }
    }

    fn key(&self) -> SocketKey {
        format!("tcp/{}", self.address).into()
    }

    fn sockets(&self) -> Sockets {
        Sockets {
            key: self.key(),
            used: SocketUse::Listener,
            fds: vec![self.socket.try_clone().unwrap().into()],
        }
    }

    fn changes(&self) -> Vec<Change> {
        let SocketAddr::V4(backend) = self.backend else { panic!("the backend is reached by IPv4") };
        let service = Service {
            id: "publish/s/tcp/80".into(),
            label: "web".into(),
            policy: Policy::RoundRobin,
            backends: vec![Backend {
                id: "s".into(),
                v4: Some(backend),
                v6: None,
                weight: 1,
                state: BackendState::Ready,
                place: Place::Here,
            }],
            connect_timeout: Duration::from_secs(1),
            udp_idle: Duration::from_secs(30),
            ..Service::default()
        };
        let listener = Listener {
            id: self.key(),
            protocol: Protocol::Tcp,
            address: self.address,
            service: Arc::clone(&service.id),
            funnel: None,
            target_port: None,
            proxy_protocol: None,
            source: Source::Own,
            limit: 100,
        };
        vec![Change::Proxy(Proxy::PutService(service)), Change::Proxy(Proxy::PutListener(listener))]
    }
}

/// A view with the name `web`, and its UDP socket.
fn view() -> (Vec<Change>, Sockets, SocketAddr) {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let name = Name { name: "web".into(), addresses: vec![[10, 1, 2, 3].into()], ..Name::default() };
    let view = View {
        id: "box".into(),
        zones: vec![ViewZone { zone: "net".into(), suffix: "net".into() }],
        names: Vec::new(),
        forward: Forward::Never,
        single_labels_are_local: true,
    };
    let changes =
        vec![Change::Dns(Dns::PutName { zone: "net".into(), name }), Change::Dns(Dns::PutView(view))];
    let sockets = Sockets {
        key: "dns/box".into(),
        used: SocketUse::Dns(ViewUse::Udp),
        fds: vec![OwnedFd::from(socket)],
    };
    (changes, sockets, address)
}

/// The address that `web` leads to.
async fn resolve(server: SocketAddr) -> [u8; 4] {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01";
    socket.send_to(query, server).await.unwrap();
    let mut answer = [0; 512];
    let length = tokio::time::timeout(LIMIT, socket.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!((answer[3] & 15, answer[7]), (0, 1), "one answer, no error");
    answer[length - 4..length].try_into().unwrap()
}

#[tokio::test]
async fn what_is_applied_is_served_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&dir);
    let mut control = Control::start(&dir);
    let Connected { session, revision, inventory } = control.connected().await;
    assert!(revision == 0 && inventory.is_empty());

    let port = Port::open(echo_server().await);
    let (mut changes, sockets, server) = view();
    changes.extend(port.changes());
    let batch = Batch { revision: 5, full: true, changes, sockets: vec![sockets, port.sockets()] };
    control.serve(&session, batch).await;
    assert!(echoes(&mut TcpStream::connect(port.address).await.unwrap()).await);
    assert_eq!(resolve(server).await, [10, 1, 2, 3]);

    let stats = control.plane.stats().await.unwrap();
    assert_eq!((stats.revision, &*stats.services[0].label, stats.services[0].counts.accepted), (5, "web", 1));
    assert_eq!(stats.dns.answers["local"], 1);
}

#[tokio::test]
async fn a_new_control_plane_gets_the_sockets_and_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&dir);
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    let port = Port::open(echo_server().await);
    let (names, sockets, server) = view();
    let changes = [names.clone(), port.changes()].concat();
    // What is kept for the control plane comes back like what is served.
    let aside = std::fs::File::open("/dev/null").unwrap().into();
    let aside = Sockets { key: "aside".into(), used: SocketUse::Keep, fds: vec![aside] };
    let batch = Batch { revision: 1, full: true, changes, sockets: vec![sockets, port.sockets(), aside] };
    control.serve(&session, batch).await;
    let mut old = TcpStream::connect(port.address).await.unwrap();
    assert!(echoes(&mut old).await);

    control.plane.stop().await;
    assert!(echoes(&mut old).await);
    assert!(echoes(&mut TcpStream::connect(port.address).await.unwrap()).await);
    assert_eq!(resolve(server).await, [10, 1, 2, 3]);

    let mut control = Control::start(&dir);
    let Connected { session, revision, inventory } = control.connected().await;
    let mut kept: Vec<_> = inventory.iter().map(|some| (some.key.to_string(), some.used)).collect();
    kept.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("aside".to_owned(), SocketUse::Keep),
        ("dns/box".to_owned(), SocketUse::Dns(ViewUse::Udp)),
        (port.key().to_string(), SocketUse::Listener),
    ];
    assert_eq!((revision, &kept[..]), (1, &expected[..]));
    let held = inventory.iter().find(|some| some.key == port.key()).unwrap().fds[0].try_clone().unwrap();
    assert_eq!(TcpListener::from(held).local_addr().unwrap(), port.address);

    // The same again, without sockets: nothing changes for anybody.
    let changes = [names, port.changes()].concat();
    control.serve(&session, Batch { revision: 2, full: true, changes, sockets: Vec::new() }).await;
    assert!(echoes(&mut old).await);
    assert!(echoes(&mut TcpStream::connect(port.address).await.unwrap()).await);

    // Everything that is not mentioned goes; open connections stay.
    control.serve(&session, Batch { revision: 3, full: true, ..Batch::default() }).await;
    drop((inventory, port.socket));
    let refused = TcpStream::connect(port.address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(echoes(&mut old).await);
}

#[tokio::test]
async fn what_health_checks_find_is_told_and_told_again_to_who_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&dir);
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    let port = Port::open(echo_server().await);
    let mut changes = port.changes();
    if let Change::Proxy(Proxy::PutService(service)) = &mut changes[0] {
        let (interval, timeout) = (Duration::from_millis(10), LIMIT);
        service.health =
            Some(Check { probe: Probe::Tcp { port: None }, interval, timeout, rise: 2, fall: 1 });
        service.backends[0].state = BackendState::Starting;
    }
    let batch = Batch { revision: 1, full: true, changes: changes.clone(), sockets: vec![port.sockets()] };
    control.serve(&session, batch).await;
    let told = |event| match event {
        Event::Health { service, backend, well, .. } => (service.to_string(), backend.to_string(), well),
        _ => panic!("something else than a verdict"),
    };
    let expected = ("publish/s/tcp/80".to_owned(), "s".to_owned(), true);
    assert_eq!(told(control.next().await), expected);
    assert!(echoes(&mut TcpStream::connect(port.address).await.unwrap()).await);

    control.plane.stop().await;
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    assert_eq!(told(control.next().await), expected);
    // Its table does not know yet, and does no harm.
    control.serve(&session, Batch { revision: 2, full: true, changes, sockets: Vec::new() }).await;
    assert!(echoes(&mut TcpStream::connect(port.address).await.unwrap()).await);
    let stats = control.plane.stats().await.unwrap();
    assert_eq!(stats.services[0].members["s"].well, Some(true));
}

#[tokio::test]
async fn what_arrives_while_there_is_no_data_plane_waits_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::start(&dir);
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    let port = Port::open(echo_server().await);
    let batch =
        |revision| Batch { revision, full: true, changes: port.changes(), sockets: vec![port.sockets()] };
    control.serve(&session, batch(1)).await;

    session.tell(&Request::Stop);
    worker.ended().await;
    let mut waiting = TcpStream::connect(port.address).await.unwrap();
    // Lost without an error: the whole is sent again to the next one.
    session.apply(Batch { revision: 2, ..Batch::default() }).unwrap();

    let _worker = Worker::start(&dir);
    let Connected { session, revision, inventory } = control.connected().await;
    assert!(revision == 0 && inventory.is_empty());
    control.serve(&session, batch(3)).await;
    assert!(echoes(&mut waiting).await);
    assert_eq!(control.plane.restarts(), 1);
}

#[tokio::test]
async fn what_cannot_be_served_is_told_and_keeps_nothing_else_back() {
    let dir = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&dir);
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    let backend = echo_server().await;
    let (good, bad) = (Port::open(backend), Port::open(backend));
    let changes = [bad.changes(), good.changes()].concat();
    let batch = Batch { revision: 1, full: true, changes, sockets: vec![good.sockets()] };
    control.serve(&session, batch).await;
    assert!(echoes(&mut TcpStream::connect(good.address).await.unwrap()).await);
    match control.next().await {
        Event::Refused { revision: 1, error } => assert!(error.contains(&*bad.key()), "{error}"),
        _ => panic!("the listener without a socket was not refused"),
    }
    // With its socket, it is served.
    let batch = Batch { revision: 2, full: false, changes: bad.changes(), sockets: vec![bad.sockets()] };
    control.serve(&session, batch).await;
    assert!(echoes(&mut TcpStream::connect(bad.address).await.unwrap()).await);
}

#[tokio::test]
async fn a_peer_that_talks_nonsense_loses_its_link_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let _worker = Worker::start(&dir);
    let path = Places::in_service(dir.path()).socket;
    let mut packer = Packer::default();
    packer.push(&Request::Commit { revision: 1 }).unwrap();
    let ungreeted = packer.finish().remove(0).bytes;
    for nonsense in [&b"\xff\x00"[..], b"[{\"type\":\"sockets\"}]", b"[", &ungreeted] {
        let peer = seqpacket::Connection::connect(&path).unwrap();
        peer.send(nonsense, &[] as &[OwnedFd]).unwrap();
        let closed = tokio::task::spawn_blocking(move || {
            let mut fds = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()).unwrap();
            peer.recv(&mut [0; 64]).unwrap().length == 0
        });
        assert!(closed.await.unwrap(), "{nonsense:?}");
    }
    let mut control = Control::start(&dir);
    let session = control.connected().await.session;
    control.serve(&session, Batch { revision: 1, full: true, ..Batch::default() }).await;
}

#[tokio::test]
async fn without_a_data_plane_the_control_plane_says_so_and_goes_on_trying() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = Control::start(&dir);
    assert!(control.plane.stats().await.is_err());
    assert!(control.plane.served(1, Duration::from_millis(50)).await.is_err());
    assert!(!control.plane.is_connected() && control.plane.pid().is_none());
    // One that is there at last is found.
    let _worker = Worker::start(&dir);
    control.connected().await;
    control.plane.stop().await;
}
