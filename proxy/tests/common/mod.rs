//! What the tests of real sockets share: a proxy on loopback, backends as threads, and waiting with a deadline.
#![allow(dead_code, reason = "every test file is a crate of its own and uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netd_proxy::table::{
    Backend, BackendState, Change, Listener, Place, Policy, Protocol, ProxyProtocol, Service, Source,
};
use netd_proxy::{Config, Counts, Proxy};
use netd_sys::socket;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A proxy with one service `s`, to be changed by tests.
pub(crate) struct Bed {
    pub(crate) proxy: Proxy,
    pub(crate) service: Service,
    listeners: usize,
}

impl Bed {
    pub(crate) fn new(backends: &[SocketAddr]) -> Self {
        Self::with(backends, &Config { workers: 2, max_connections: 100_000, ..Config::default() })
    }

    pub(crate) fn with(backends: &[SocketAddr], config: &Config) -> Self {
        let proxy = Proxy::start(config).unwrap();
        let service = Service {
            id: "s".into(),
            label: "s".into(),
            policy: Policy::RoundRobin,
            backends: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            udp_idle: Duration::from_secs(30),
            ..Service::default()
        };
        let mut bed = Self { proxy, service, listeners: 0 };
        bed.set_backends(backends);
        bed
    }

    pub(crate) fn set_backends(&mut self, backends: &[SocketAddr]) {
        self.service.backends = backends.iter().map(|address| backend(*address)).collect();
        self.put_service();
    }

    pub(crate) fn put_service(&self) {
        self.proxy.apply(vec![Change::PutService(self.service.clone())], Vec::new()).unwrap();
    }

    /// Another listener on a free port: its address.
    pub(crate) fn listen(&mut self) -> SocketAddr {
        self.listen_as(None, u32::MAX)
    }

    pub(crate) fn listen_as(&mut self, proxy_protocol: Option<ProxyProtocol>, limit: u32) -> SocketAddr {
        let sockets = socket::bind_tcp(loopback(0), 2, 4096).unwrap();
        let address = socket::local_address(&sockets[0]).unwrap();
        self.listeners += 1;
        let listener = Listener { proxy_protocol, limit, ..listener(address) };
        let id = Arc::clone(&listener.id);
        self.proxy.apply(vec![Change::PutListener(listener)], vec![(id, sockets)]).unwrap();
        address
    }

    pub(crate) fn drop_listener(&self, address: SocketAddr) {
        let listener = listener(address).id;
        self.proxy.apply(vec![Change::DropListener { listener }], Vec::new()).unwrap();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.proxy.stats().services.into_iter().find(|service| &*service.service == "s").unwrap().counts
    }

    /// Waits until no connection is open.
    pub(crate) fn settle(&self) -> Counts {
        eventually("all connections are closed", || (self.counts().open == 0).then(|| self.counts()))
    }
}

pub(crate) fn listener(address: SocketAddr) -> Listener {
    Listener {
        id: format!("tcp/{address}").into(),
        protocol: Protocol::Tcp,
        address,
        service: "s".into(),
        funnel: None,
        target_port: None,
        proxy_protocol: None,
        source: Source::Own,
        limit: u32::MAX,
    }
}

pub(crate) fn backend(address: SocketAddr) -> Backend {
    let (v4, v6) = match address {
        SocketAddr::V4(address) => (Some(address), None),
        SocketAddr::V6(address) => (None, Some(address)),
    };
    Backend {
        id: address.to_string().into(),
        v4,
        v6,
        weight: 1,
        state: BackendState::Ready,
        place: Place::Here,
    }
}

/// A server whose connections are handled by `serve`, each in a thread of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn new(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (serve, count) = (Arc::new(serve), Arc::clone(&accepted));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                thread::Builder::new().stack_size(128 << 10).spawn(move || serve(stream)).unwrap();
            }
        });
        Self { address, accepted }
    }

    /// Sends back what it gets, and ends when its client does.
    pub(crate) fn echo() -> Self {
        Self::new(|mut stream| {
            let mut buffer = vec![0; 32 << 10];
            loop {
                let filled = stream.read(&mut buffer)?;
                if filled == 0 {
                    return stream.shutdown(Shutdown::Write);
                }
                stream.write_all(&buffer[..filled])?;
            }
        })
    }

    /// Says its name at once, and ends.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::new(move |mut stream| stream.write_all(name.as_bytes()))
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// An address where nobody listens, so that connecting is refused.
pub(crate) fn refusing() -> SocketAddr {
    TcpListener::bind(loopback(0)).unwrap().local_addr().unwrap()
}

/// A listening socket whose backlog is full, and what fills it: who comes now is not answered.
pub(crate) fn silent() -> (socket2::Socket, SocketAddr, Vec<io::Result<TcpStream>>) {
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&loopback(0).into()).unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let filling = (0..3).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200))).collect();
    (silent, address, filling)
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes until the end.
pub(crate) fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// Asks until there is an answer; fails when it takes too long.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// Bytes that are different at every place, from a seed.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2) + 1)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }

    pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Self::new(seed).fill(&mut bytes);
        bytes
    }
}
