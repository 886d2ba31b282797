//! A service of one host, asked by a neighbour of its backend: through the proxy, straight by the kernel (`--east-west
//! connect`), and beside both the backend's own address. Then what a service costs when there are ten thousand.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::{Daemon, Lab, Place, Setup, backend, eventually};
use serde_json::json;

use crate::figures::{DIRECT, NETD, NETD_STRAIGHT};
use crate::load::api::Connection;
use crate::measure::{Name, Results, Summary};
use crate::programs::{HTTP, Programs};
use crate::scenario::Plan;
use crate::scenario::pair::{Pair, Test};

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
        Pair { name, client, server, address, http: HTTP }
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
        many(&netd, &client, vip("relay")?, plan, results)?;
    }
    drop(programs);
    netd.netd("down --purge").map(drop)
}

/// What it takes to add a service, and to open a connection to one, beside ten others and beside ten thousand.
fn many(netd: &Daemon, client: &Place, vip: IpAddr, plan: &Plan, results: &mut Results) -> Result<()> {
    let mut api = Connection::open(&netd.socket())?;
    let mut made = 0;
    let mut grow = |to: usize| -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        while made < to {
            let network = made / A_NETWORK;
            if made % A_NETWORK == 0 {
                api.call("POST", "/v1/networks", &json!({ "Name": format!("many{network}") }).to_string())?;
            }
            let body = json!({ "Name": format!("service{made}"), "Network": format!("many{network}") });
            times.push(api.call("POST", "/v1/services", &body.to_string())?);
            made += 1;
        }
        Ok(times)
    };
    let opened = || -> Result<f64> {
        let to = SocketAddr::new(vip, HTTP);
        let times = client.enter(|| {
            let one = |_| {
                let started = Instant::now();
                std::net::TcpStream::connect(to).map(|_| started.elapsed())
            };
            (0..200).map(one).collect::<Result<Vec<_>, _>>()
        })?;
        median(times.context("connect to the VIP")?)
    };
    let few = (median(grow(10)?)?, opened()?);
    let all = if plan.seconds > 1 { 10_000 } else { 500 };
    let last = grow(all)?.split_off(all - 60);
    let lot = (median(last)?, opened()?);
    results.record("services-add", NETD, 1, lot.0);
    results.record("services-add-growth", NETD, 1, lot.0 / few.0);
    results.record("services-connect-growth", NETD, 1, lot.1 / few.1);
    eventually(Duration::from_secs(5), "the first is still served", || Ok(client.connect((vip, HTTP))?))?;
    ensure!(netd.netd("service ls -q")?.stdout.lines().count() == all + 2, "all are there");
    Ok(())
}

/// In milliseconds.
fn median(times: Vec<Duration>) -> Result<f64> {
    let times = times.into_iter().map(|time| time.as_secs_f64() * 1e3);
    Summary::of(times).map(|summary| summary.median).context("no times")
}

/// Services on one network: what its band of addresses holds.
const A_NETWORK: usize = 60;
