//! haproxy in TCP mode, with splicing where it thinks that it pays.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use crate::rival::{Contender, Doors, Protocol, program};
use crate::site::{Container, Node};
use crate::task::Server;

pub(crate) fn start(node: &Node, container: &Container) -> Result<Contender> {
    program("haproxy", "haproxy")?;
    let doors = Doors::from(node.address, 22_000);
    let mut config = String::from(
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n",
    );
    for (door, port) in doors.of(Protocol::Tcp) {
        let _ = writeln!(config, "listen p{port}\n  bind {door}\n  server s {}", container.at(port));
    }
    let file = "/run/lab/haproxy.cfg";
    fs::write(file, config)?;
    let server = Server::start(&node.host, &format!("haproxy -db -f {file}"))?;
    Ok(Contender { name: "haproxy", doors, relays: vec![server.pid()], servers: vec![server] })
}
