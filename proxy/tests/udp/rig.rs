//! The proxy with one UDP listener in a fresh namespace, and backends that echo.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netd_proxy::table::{Backend, BackendState, Change, Listener, Place, Policy, Protocol, Service, Source};
use netd_proxy::{Config, Counts, Proxy};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const LISTENER: &str = "udp/test";
const SERVICE: &str = "service/test";

/// Runs `test` on a thread in a network namespace of its own, with loopback up and more addresses on it.
pub(crate) fn in_namespace(test: impl FnOnce() + Send) {
    let body = || {
        // A flow has a descriptor here, its client another.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests make network namespaces: run them as root");
        ip("link set lo up");
        for address in ["fd00::1/128", "fd00::2/128"] {
            ip(&format!("addr add {address} dev lo nodad"));
        }
        test();
    };
    let outcome = thread::scope(|scope| scope.spawn(body).join());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip is installed");
    assert!(status.success(), "ip {arguments}");
}

/// Waits until `happened`, for as long as anything may take here.
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// How the listener of a [`Rig`] is.
pub(crate) struct Setup {
    pub(crate) bind: &'static str,
    pub(crate) workers: usize,
    pub(crate) sockets: usize,
    pub(crate) limit: u32,
    pub(crate) idle: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self { bind: "127.0.0.1:0", workers: 2, sockets: 2, limit: 4096, idle: Duration::from_secs(60) }
    }
}

pub(crate) struct Rig {
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    setup: Setup,
}

impl Rig {
    pub(crate) fn new(setup: Setup, backends: &[SocketAddr]) -> Self {
        let proxy = Proxy::start(&Config { workers: setup.workers, ..Config::default() }).unwrap();
        let sockets = netd_sys::socket::bind_udp(setup.bind.parse().unwrap(), setup.sockets).unwrap();
        let address = netd_sys::socket::local_address(&sockets[0]).unwrap();
        let rig = Self { proxy, address, setup };
        let changes = vec![rig.service(backends), rig.listener()];
        rig.proxy.apply(changes, vec![(LISTENER.into(), sockets)]).unwrap();
        rig
    }

    fn listener(&self) -> Change {
        Change::PutListener(Listener {
            id: LISTENER.into(),
            protocol: Protocol::Udp,
            address: self.address,
            service: SERVICE.into(),
            funnel: None,
            target_port: None,
            proxy_protocol: None,
            source: Source::Own,
            limit: self.setup.limit,
        })
    }

    /// The first backend is on another node; the rest is here.
    pub(crate) fn set_first_on_node(&self, mesh: SocketAddr, backends: &[SocketAddr]) {
        let Change::PutService(mut service) = self.service(backends) else { unreachable!("a service") };
        service.backends[0].place = Place::Node { mesh };
        self.proxy.apply(vec![Change::PutService(service)], Vec::new()).unwrap();
    }

    /// All backends are outside.
    pub(crate) fn set_outside(&self, backends: &[SocketAddr]) {
        let Change::PutService(mut service) = self.service(backends) else { unreachable!("a service") };
        service.backends.iter_mut().for_each(|backend| backend.place = Place::Elsewhere);
        self.proxy.apply(vec![Change::PutService(service)], Vec::new()).unwrap();
    }

    fn service(&self, backends: &[SocketAddr]) -> Change {
        let backends = backends.iter().map(|address| Backend {
            id: address.to_string().into(),
            v4: match address {
                SocketAddr::V4(address) => Some(*address),
                SocketAddr::V6(_) => None,
            },
            v6: match address {
                SocketAddr::V4(_) => None,
                SocketAddr::V6(address) => Some(*address),
            },
            weight: 1,
            state: BackendState::Ready,
            place: Place::Here,
        });
        Change::PutService(Service {
            id: SERVICE.into(),
            label: "test".into(),
            policy: Policy::RoundRobin,
            backends: backends.collect(),
            connect_timeout: Duration::from_secs(1),
            udp_idle: self.setup.idle,
            ..Service::default()
        })
    }

    /// One backend that has an address of each family.
    pub(crate) fn set_two_families(&self, v4: SocketAddrV4, v6: SocketAddrV6) {
        let Change::PutService(mut service) = self.service(&[v4.into()]) else { unreachable!("a service") };
        service.backends[0].v6 = Some(v6);
        self.proxy.apply(vec![Change::PutService(service)], Vec::new()).unwrap();
    }

    pub(crate) fn set_backends(&self, backends: &[SocketAddr]) {
        self.proxy.apply(vec![self.service(backends)], Vec::new()).unwrap();
    }

    /// The first of these drains, and its flows end after `limit`.
    pub(crate) fn drain_first(&self, backends: &[SocketAddr], limit: Duration) {
        self.change_first(backends, BackendState::Draining, Some(limit));
    }

    /// The first of these is about to be gone.
    pub(crate) fn send_off_first(&self, backends: &[SocketAddr]) {
        self.change_first(backends, BackendState::Leaving, None);
    }

    /// The first of these has been found unwell.
    pub(crate) fn fail_first(&self, backends: &[SocketAddr]) {
        self.change_first(backends, BackendState::Failing, None);
    }

    fn change_first(&self, backends: &[SocketAddr], state: BackendState, drain: Option<Duration>) {
        let Change::PutService(mut service) = self.service(backends) else { unreachable!("a service") };
        service.backends[0].state = state;
        service.drain = drain;
        self.proxy.apply(vec![Change::PutService(service)], Vec::new()).unwrap();
    }

    pub(crate) fn drop_listener(&self) {
        self.proxy.apply(vec![Change::DropListener { listener: LISTENER.into() }], Vec::new()).unwrap();
    }

    pub(crate) fn counts(&self) -> Counts {
        let stats = self.proxy.stats();
        stats.listeners.into_iter().next().expect("the listener is there").counts
    }

    /// A client that sends to the listener at `host` and hears nobody else.
    pub(crate) fn client(&self, host: IpAddr) -> UdpSocket {
        let any = if host.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = UdpSocket::bind(any).unwrap();
        client.connect((host, self.address.port())).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    pub(crate) fn local_client(&self) -> UdpSocket {
        self.client(self.address.ip())
    }
}

/// A server that sends back what comes, preceded by its name, until it is dropped.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn new() -> Self {
        Self::at("127.0.0.1:0", "")
    }

    pub(crate) fn named(name: &'static str) -> Self {
        Self::at("127.0.0.1:0", name)
    }

    pub(crate) fn at(address: &str, name: &'static str) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        netd_sys::datagram::enlarge_buffers(&socket).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            buffer[..name.len()].copy_from_slice(name.as_bytes());
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer[name.len()..]) else { continue };
                // A client that is gone is no fault of the server's.
                let _ = socket.send_to(&buffer[..name.len() + len], from);
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Sends `bytes` and returns what comes back.
pub(crate) fn ask(client: &UdpSocket, bytes: &[u8]) -> Vec<u8> {
    client.send(bytes).unwrap();
    let mut buffer = vec![0; 70_000];
    let len = client.recv(&mut buffer).expect("an answer");
    buffer.truncate(len);
    buffer
}

/// Asks again and again, as a client whose datagrams get lost does.
pub(crate) fn ask_until_answered(client: &UdpSocket, bytes: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.send(bytes).unwrap();
        if let Ok(len) = client.recv(&mut buffer) {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            buffer.truncate(len);
            return buffer;
        }
        assert!(Instant::now() < deadline, "no answer ever");
    }
}
