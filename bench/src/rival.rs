//! Who forwards: netd, the bare road, and what else a user would pick. One file a contender; each says what it needs,
//! starts itself on a node and tells where its doors are.

pub(crate) mod aardvark;
pub(crate) mod attacher;
pub(crate) mod cni;
pub(crate) mod direct;
pub(crate) mod dnsmasq;
pub(crate) mod docker_proxy;
pub(crate) mod haproxy;
pub(crate) mod netavark;
pub(crate) mod netd;
pub(crate) mod nft_dnat;
pub(crate) mod nginx_stream;
pub(crate) mod plain_vxlan;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use netd_tests::{Place, eventually};

use crate::measure::Name;
use crate::task::Server;

/// A running contender, as a client and as the accountant see it.
pub(crate) struct Contender {
    pub(crate) name: Name,
    pub(crate) doors: Doors,
    /// The processes that forward; empty where the kernel does.
    pub(crate) relays: Vec<u32>,
    /// They end when this is dropped.
    pub(crate) servers: Vec<Server>,
}

/// Where a client reaches the programs of [`crate::programs`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doors {
    pub(crate) bulk: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) echo: SocketAddr,
    pub(crate) sink: SocketAddr,
}

/// What a contender is asked to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Doors {
    /// Ports of `address` from `first` on, one a program.
    pub(crate) fn from(address: std::net::IpAddr, first: u16) -> Self {
        let at = |place| SocketAddr::new(address, first + place);
        Self { bulk: at(0), http: at(1), echo: at(2), sink: at(3) }
    }

    /// The doors of `protocol`, each with the program's port behind it.
    pub(crate) fn of(&self, protocol: Protocol) -> [(SocketAddr, u16); 2] {
        use crate::programs::{BULK, ECHO, HTTP, SINK};
        match protocol {
            Protocol::Tcp => [(self.bulk, BULK), (self.http, HTTP)],
            Protocol::Udp => [(self.echo, ECHO), (self.sink, SINK)],
        }
    }
}

impl Contender {
    /// Waits until each TCP door lets `client` through.
    pub(crate) fn wait(&self, client: &Place, protocol: Protocol) -> Result<()> {
        if protocol == Protocol::Udp {
            return Ok(());
        }
        for (door, _) in self.doors.of(protocol) {
            let what = format!("{} lets a client through at {door}", self.name);
            let opened = eventually(Duration::from_secs(10), &what, || Ok(client.connect(door)?));
            if let Err(error) = opened {
                let said: String = self.servers.iter().map(Server::output).collect();
                bail!("{error:#}: {said}");
            }
        }
        Ok(())
    }
}

/// The program of this name, or what to install.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf> {
    let paths = std::env::var("PATH").unwrap_or_default();
    let places = paths.split(':').chain(["/usr/sbin", "/sbin", "/usr/lib/podman", "/usr/libexec/podman"]);
    match places.map(|dir| PathBuf::from(dir).join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("not measured: {name} is missing; install the package {package}"),
    }
}
