//! The kernel's own NAT: one nftables chain, as container runtimes write it.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

use crate::rival::{Contender, Doors, Protocol, program};
use crate::site::{Container, Node};

pub(crate) fn start(node: &Node, container: &Container) -> Result<Contender> {
    program("nft", "nftables")?;
    let doors = Doors::from(node.address, 24_000);
    let mut rules = String::new();
    for (protocol, word) in [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")] {
        for (door, port) in doors.of(protocol) {
            let to = container.at(port);
            let _ = writeln!(rules, "ip daddr {} {word} dport {} dnat to {to}", door.ip(), door.port());
        }
    }
    let table = format!(
        "table ip rival {{
           chain prerouting {{ type nat hook prerouting priority dstnat; policy accept;
             {rules}
           }}
           chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;
             ip saddr {} ip daddr {} masquerade
           }}
         }}",
        container.address, container.address
    );
    node.host.run_with("nft -f -", table.as_bytes(), Duration::from_secs(10))?.success()?;
    Ok(Contender { name: "nft DNAT", doors, relays: Vec::new(), servers: Vec::new() })
}
