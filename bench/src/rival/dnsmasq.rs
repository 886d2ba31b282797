//! dnsmasq with the names in a hosts file, as libvirt and older Kubernetes use it; also the upstream of our own server.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;

use anyhow::Result;
use netd_tests::Place;

use crate::rival::program;
use crate::task::Server;

/// Serves `names` at `at`, each with an address of its own.
pub(crate) fn local(place: &Place, at: SocketAddr, names: &[String]) -> Result<Server> {
    let file = format!("/run/lab/{}.hosts", place.name);
    let mut hosts = String::new();
    for (number, name) in names.iter().enumerate() {
        let _ = writeln!(hosts, "10.200.{}.{} {name}", number / 250, number % 250 + 1);
    }
    fs::write(&file, hosts)?;
    start(place, at, &format!("-H {file}"))
}

/// Answers for every name below `zone`, with records that may be cached for an hour.
pub(crate) fn upstream(place: &Place, at: SocketAddr, zone: &str) -> Result<Server> {
    start(place, at, &format!("--address=/{zone}/10.200.0.1 --local-ttl=3600"))
}

fn start(place: &Place, at: SocketAddr, flags: &str) -> Result<Server> {
    program("dnsmasq", "dnsmasq-base")?;
    let (address, port) = (at.ip(), at.port());
    let line =
        format!("dnsmasq -k -C /dev/null -u root -x '' -R -h -z -a {address} -p {port} -c 10000 {flags}");
    Server::start(place, &line)
}
