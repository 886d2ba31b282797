//! netd itself: `netd run` on a node, and a sandbox whose ports are published as a user would.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use netd_tests::{Daemon, Place, Setup};
use serde_json::json;

use crate::figures::NETD;
use crate::load::api::Connection;
use crate::measure::Name;
use crate::rival::attacher::Attacher;
use crate::rival::{Contender, Doors, Protocol};
use crate::site::Node;

/// The daemon, its sandbox `web` on the network `lan`, and the doors to it.
pub(crate) struct Netd {
    pub(crate) daemon: Daemon,
    pub(crate) sandbox: Place,
    doors: Doors,
}

/// How its ports are caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Bind,
    SkLookup,
    Tproxy,
}

impl Netd {
    pub(crate) fn start(node: &Node, protocol: Protocol) -> Result<Self> {
        Self::publish(node, &[protocol], Way::Bind)
    }

    pub(crate) fn publish(node: &Node, protocols: &[Protocol], way: Way) -> Result<Self> {
        let (flag, config) = match way {
            Way::Bind => ("", CONFIG.to_owned()),
            Way::SkLookup => ("--publish-by steer", format!("{CONFIG}[publish]\nsteer = \"sk_lookup\"\n")),
            Way::Tproxy => ("--publish-by steer", format!("{CONFIG}[publish]\nsteer = \"tproxy\"\n")),
        };
        let daemon = daemon(node, &config)?;
        let doors = Doors::from(node.address, 25_000);
        let mut publish = flag.to_owned();
        for &protocol in protocols {
            let word = match protocol {
                Protocol::Tcp => "",
                Protocol::Udp => "/udp",
            };
            for (door, port) in doors.of(protocol) {
                publish += &format!(" -p {}:{port}{word}", door.port());
            }
        }
        daemon.netd("network create lan")?;
        let sandbox = daemon.create("web", &format!("--network lan {publish}"))?;
        Ok(Self { daemon, sandbox, doors })
    }

    pub(crate) fn contender(&self) -> Result<Contender> {
        let relays = vec![self.daemon.pid()?, self.daemon.dataplane()?];
        Ok(Contender { name: NETD, doors: self.doors, relays, servers: Vec::new() })
    }

    /// Takes everything down, so that the next scenario is alone.
    pub(crate) fn end(self) -> Result<()> {
        end(&self.daemon)
    }
}

/// A daemon with more configuration than its defaults.
pub(crate) fn daemon(node: &Node, config: &str) -> Result<Daemon> {
    node.host.daemon_with(Setup { config: config.into(), ..Setup::default() })
}

pub(crate) fn end(daemon: &Daemon) -> Result<()> {
    daemon.netd("down --purge").map(drop)
}

/// Attaches by the API; with a published port each, or without.
pub(crate) struct Api {
    socket: PathBuf,
    network: String,
    ports: bool,
    /// Connections that no call is on.
    kept: Mutex<Vec<Connection>>,
}

impl Api {
    pub(crate) fn new(daemon: &Daemon, network: &str, ports: bool) -> Self {
        Self { socket: daemon.socket(), network: network.into(), ports, kept: Mutex::default() }
    }

    /// One call, on a connection that is there already and has just proven that it works.
    fn call(&self, method: &str, path: &str, body: &str) -> Result<Duration> {
        let kept = self.kept.lock().expect("no holder panics").pop();
        let proven = kept.and_then(|mut kept| kept.call("GET", PROOF, "").is_ok().then_some(kept));
        let mut connection = match proven {
            Some(connection) => connection,
            None => {
                let mut fresh = Connection::open(&self.socket)?;
                fresh.call("GET", PROOF, "")?;
                fresh
            }
        };
        let took = connection.call(method, path, body)?;
        self.kept.lock().expect("no holder panics").push(connection);
        Ok(took)
    }
}

impl Attacher for Api {
    fn name(&self) -> Name {
        NETD
    }

    fn attach(&self, number: usize, netns: &Path) -> Result<Duration> {
        let publish = if self.ports { vec![format!("{}:80", 30_000 + number)] } else { Vec::new() };
        let body = json!({
            "Name": name(number), "Networks": [{"Network": self.network}], "Netns": netns, "Publish": publish
        });
        self.call("POST", "/v1/sandboxes", &body.to_string())
    }

    fn detach(&self, number: usize, _netns: &Path) -> Result<Duration> {
        self.call("DELETE", &format!("/v1/sandboxes/{}", name(number)), "")
    }
}

fn name(number: usize) -> String {
    format!("bench{number}")
}

/// Room for row P8; everything else as it comes.
const CONFIG: &str = "[dataplane]\nmax-connections = 10000\n";
const PROOF: &str = "/healthz";
