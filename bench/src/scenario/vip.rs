//! A service of one host, asked by a neighbour of its backend: through the proxy, straight by the kernel (`--east-west
//! connect`), and beside both the backend's own address. Then what a service costs when there are ten thousand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::query::Resolver;
use netd_tests::{Daemon, Lab, Place, Setup, backend, eventually};
use serde_json::json;

use crate::figures::{DIRECT, NETD, NETD_STRAIGHT};
use crate::load::api::Connection;
use crate::measure::{Name, Results, Summary};
use crate::programs::{HTTP, Programs};
use crate::scenario::Plan;
use crate::scenario::pair::{Pair, Ports, Test};
use crate::task::Usage;

const TESTS: &[(&str, Test)] = &[
    ("VIP, bulk, 1 stream", Test::Bulk("", "vip-bulk")),
    ("VIP, keep-alive x 64", Test::Requests("vip-requests")),
    ("VIP, connections x 64", Test::Connections("vip-connections")),
    ("VIP, UDP, 64 flows x 1", Test::Datagrams("vip-udp")),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let netd = lab.host("v-netd")?.daemon_with(Setup::default())?;
    netd.netd("network create app")?;
    netd.netd("service create relay --network app")?;
    netd.netd("service create straight --network app --east-west connect")?;
    let server = netd.create("server", "--network app --service relay")?;
    let second = netd.create("second", "--network app --service straight")?;
    let client = netd.create("client", "--network app")?;
    let pair = |name: Name, server: &Place, address: IpAddr| {
        let (client, server) = (client.clone(), server.clone());
        Pair { name, client, server, address, ports: Ports::OWN }
    };
    let vip = |service: &str| backend::vip(&netd, service);
    let all = [
        pair(NETD, &server, vip("relay")?),
        pair(NETD_STRAIGHT, &second, vip("straight")?),
        pair(DIRECT, &server, netd.address("server", "app")?),
    ];
    let mut programs = Vec::new();
    for pair in &all[..2] {
        pair.ready()?;
        programs.extend([Programs::tcp(&pair.server)?, Programs::udp(&pair.server)?]);
    }
    let pairs: Vec<Pair> = all.into_iter().filter(|pair| plan.wants(pair.name)).collect();
    plan.interleave(results, &pairs, TESTS, |pair| pair.name, Pair::measure);
    if plan.wants(NETD) {
        let places = [vip("relay")?, netd.address("server", "app")?];
        many(&netd, &client, places, results)?;
    }
    drop(programs);
    netd.netd("down --purge").map(drop)
}

/// What it takes to add a service, to ask for its name and to open a connection to it, beside ten others and beside ten
/// thousand. Each is served: it has one backend, which is the same program for all.
fn many(netd: &Daemon, client: &Place, [vip, server]: [IpAddr; 2], results: &mut Results) -> Result<()> {
    let mut crowd = Crowd { api: Connection::open(&netd.socket())?, server, made: 0 };
    let processes = [netd.pid()?, netd.dataplane()?];
    let few = (crowd.grow(10)?, lookup(client)?, connect(client, vip)?);
    let before = Usage::of(&processes)?.megabytes();
    let started = Instant::now();
    let mut last = crowd.grow(ALL)?;
    eventually(Duration::from_secs(30), "the last is served", || {
        let name = format!("service{}", ALL - 1);
        Ok(netd.place.connect((backend::vip::<Ipv4Addr>(netd, &name)?, HTTP))?)
    })?;
    let took = started.elapsed();
    last.drain(..last.len().saturating_sub(A_NETWORK));
    let lot = (last, lookup(client)?, connect(client, vip)?);
    let (first, last) = (median(few.0)?, median(lot.0)?);
    for (figure, value) in [
        ("services-add", last),
        ("services-add-growth", last / first),
        ("services-all", took.as_secs_f64()),
        ("services-memory", Usage::of(&processes)?.megabytes() - before),
        ("services-lookup-growth", median(lot.1)? / median(few.1)?),
        ("services-connect-growth", median(lot.2)? / median(few.2)?),
    ] {
        results.record(figure, NETD, 1, value);
    }
    eprintln!(
        "  {ALL} services  {NETD}: one more {last:.2} ms (of ten {first:.2}), all in {:.1} s",
        took.as_secs_f64()
    );
    ensure!(netd.netd("service ls -q")?.stdout.lines().count() == ALL + 2, "all are there");
    Ok(())
}

struct Crowd {
    api: Connection,
    server: IpAddr,
    made: usize,
}

impl Crowd {
    /// So many in all; how long each took.
    fn grow(&mut self, to: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        while self.made < to {
            let number = self.made;
            let network = format!("many{}", number / A_NETWORK);
            if number.is_multiple_of(A_NETWORK) {
                self.api.call("POST", "/v1/networks", &json!({ "Name": network }).to_string())?;
            }
            let backend = SocketAddr::new(self.server, HTTP).to_string();
            let body =
                json!({ "Name": format!("service{number}"), "Network": network, "Backends": [backend] });
            times.push(self.api.call("POST", "/v1/services", &body.to_string())?);
            self.made += 1;
        }
        Ok(times)
    }
}

fn connect(client: &Place, vip: IpAddr) -> Result<Vec<Duration>> {
    let to = SocketAddr::new(vip, HTTP);
    let one = |_| {
        let started = Instant::now();
        std::net::TcpStream::connect(to).map(|_| started.elapsed())
    };
    let times = client.enter(|| (0..SAMPLES).map(one).collect::<Result<Vec<_>, _>>())?;
    times.context("connect to the VIP")
}

fn lookup(client: &Place) -> Result<Vec<Duration>> {
    let resolver = Resolver::new(client)?;
    let one = |_| {
        let started = Instant::now();
        ensure!(resolver.addresses("relay")?.len() == 1, "its address");
        Ok(started.elapsed())
    };
    (0..SAMPLES).map(one).collect()
}

/// In milliseconds.
fn median(times: Vec<Duration>) -> Result<f64> {
    let times = times.into_iter().map(|time| time.as_secs_f64() * 1e3);
    Summary::of(times).map(|summary| summary.median).context("no times")
}

/// Questions, and connections, that one figure is the median of.
const SAMPLES: usize = 200;
/// Services, as the rows say.
const ALL: usize = 10_000;

/// Services on one network: what its band of addresses holds.
const A_NETWORK: usize = 60;
