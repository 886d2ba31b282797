//! Docker's userland proxy, one process a port, as dockerd starts it.

use anyhow::Result;

use crate::rival::{Contender, Doors, Protocol, program};
use crate::site::{Container, Node};
use crate::task::Server;

pub(crate) fn start(node: &Node, container: &Container, protocol: Protocol) -> Result<Contender> {
    let program = program("docker-proxy", "docker.io")?;
    let doors = Doors::from(node.address, 21_000);
    let word = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let mut servers = Vec::new();
    for (door, port) in doors.of(protocol) {
        // It tells its parent over descriptor 3 that it is ready, and closes whatever it finds there.
        let line = format!(
            "sh -c 'exec {} -proto {word} -host-ip {} -host-port {} -container-ip {} -container-port {port} 3>/dev/null'",
            program.display(),
            door.ip(),
            door.port(),
            container.address
        );
        servers.push(Server::start(&node.host, &line)?);
    }
    let relays = servers.iter().map(Server::pid).collect();
    Ok(Contender { name: "docker-proxy", doors, relays, servers })
}
