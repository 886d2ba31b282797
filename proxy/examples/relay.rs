//! The smallest program around the proxy: `relay LISTEN BACKEND[,BACKEND...] [WORKERS] [SPIN_MICROSECONDS]` relays TCP
//! until its standard input ends, and then prints its counters. Good for measuring it by itself.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use netd_proxy::table::{Backend, BackendState, Change, Listener, Place, Policy, Protocol, Service, Source};
use netd_proxy::{Config, Proxy};
use netd_sys::socket;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, backends, rest @ ..] = &arguments[..] else {
        return Err("usage: relay LISTEN BACKEND[,BACKEND...] [WORKERS] [SPIN_MICROSECONDS]".into());
    };
    let mut config = Config { max_connections: 100_000, ..Config::default() };
    if let Some(workers) = rest.first() {
        config.workers = workers.parse()?;
    }
    if let Some(spin) = rest.get(1) {
        config.spin = Duration::from_micros(spin.parse()?);
    }
    let address: SocketAddr = listen.parse()?;
    let sockets = socket::bind_tcp(address, config.workers, 4096)?;
    let service = Service {
        id: "relay".into(),
        label: "relay".into(),
        policy: Policy::RoundRobin,
        backends: backends.split(',').map(backend).collect::<Outcome<_>>()?,
        connect_timeout: Duration::from_secs(5),
        udp_idle: Duration::from_secs(30),
        ..Service::default()
    };
    let listener = Listener {
        id: "relay".into(),
        protocol: Protocol::Tcp,
        address,
        service: Arc::clone(&service.id),
        funnel: None,
        target_port: None,
        proxy_protocol: None,
        source: Source::Own,
        limit: u32::MAX,
    };
    let proxy = Proxy::start(&config)?;
    let id = Arc::clone(&listener.id);
    proxy.apply(vec![Change::PutService(service), Change::PutListener(listener)], vec![(id, sockets)])?;
    io::stdin().read_to_end(&mut Vec::new())?;
    println!("{:#?}", proxy.stats());
    Ok(())
}

fn backend(text: &str) -> Outcome<Backend> {
    let (v4, v6) = match text.parse()? {
        SocketAddr::V4(address) => (Some(address), None),
        SocketAddr::V6(address) => (None, Some(address)),
    };
    Ok(Backend { id: text.into(), v4, v6, weight: 1, state: BackendState::Ready, place: Place::Here })
}
