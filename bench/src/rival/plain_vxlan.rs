//! Two nodes whose containers are joined as flannel joins them: a bridge and a VXLAN device each, told once and for all
//! where every container is; nothing learns and nothing is flooded. And a published port of the one that leads to the
//! container of the other, as kernels do it: DNAT there, the sender's address replaced so that answers come back.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use netd_tests::{Host, Lab, Place};

use crate::programs::{BULK, ECHO, HTTP};
use crate::rival::program;
use crate::scenario::pair::{Pair, Ports};
use crate::site;

/// A node, its bridge, its VXLAN device, and its one container.
struct Side {
    node: Host,
    container: Host,
    address: Ipv4Addr,
    mac: &'static str,
}

pub(crate) fn pair(lab: &Lab) -> Result<Pair> {
    let (one, two) = (side(lab, 1, "02:00:0a:53:00:01")?, side(lab, 2, "02:00:0a:53:00:02")?);
    one.knows(&two)?;
    two.knows(&one)?;
    let (client, server, address) = (one.container.place, two.container.place, two.address.into());
    Ok(Pair { name: crate::figures::PLAIN_VXLAN, client, server, address, ports: Ports::OWN })
}

/// The first node's ports lead to the second node's container; the client sees the node alone.
pub(crate) fn mesh(lab: &Lab, client: &Place) -> Result<Pair> {
    program("nft", "nftables")?;
    let (one, two) = (side(lab, 3, "02:00:0a:53:00:03")?, side(lab, 4, "02:00:0a:53:00:04")?);
    one.knows(&two)?;
    two.knows(&one)?;
    // The node itself is on the bridge, as the source of what it forwards.
    let (gateway, mac) = (Ipv4Addr::new(10, 84, 0, 101), "02:00:0a:53:00:65");
    let link = format!(
        "link set box0 address {mac}
         addr add {gateway}/24 dev box0
         neigh add {} lladdr {} dev box0 nud permanent",
        two.address, two.mac
    );
    site::batch(&one.node, &link)?;
    two.node.sh(&format!("bridge fdb add {mac} dev vx0 dst {} self permanent", one.node.v4))?;
    two.node.sh(&format!("bridge fdb add {mac} dev vx0 master static"))?;
    site::batch(&two.container, &format!("neigh add {gateway} lladdr {mac} dev box nud permanent"))?;
    site::set(&one.node, "net/ipv4/ip_forward", "1")?;
    let rules = format!(
        "table ip rival {{
           chain prerouting {{ type nat hook prerouting priority dstnat; policy accept;
             ip daddr {} meta l4proto {{ tcp, udp }} th dport {{ {HTTP}, {BULK}, {ECHO} }} dnat to {}
           }}
           chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;
             ip daddr {} masquerade
           }}
         }}",
        one.node.v4, two.address, two.address
    );
    one.node.run_with("nft -f -", rules.as_bytes(), Duration::from_secs(10))?.success()?;
    let address = one.node.v4.into();
    Ok(Pair {
        name: crate::figures::KERNEL_MESH,
        client: client.clone(),
        server: two.container.place,
        address,
        ports: Ports::OWN,
    })
}

fn side(lab: &Lab, number: u8, mac: &'static str) -> Result<Side> {
    let (node, container) = (lab.host(&format!("x-node{number}"))?, lab.host(&format!("x-box{number}"))?);
    let (address, name) = (Ipv4Addr::new(10, 84, 0, number), &container.name);
    let links = format!(
        "link add box0 type bridge
         link add vx0 mtu 1450 type vxlan id 77 dstport 4789 local {} nolearning noudpcsum
         link set vx0 master box0 up
         link add box1 mtu 1450 type veth peer name box netns {name}
         link set box1 master box0 up
         link set box0 mtu 1450 up",
        node.v4
    );
    site::batch(&node, &links)?;
    site::batch(
        &container,
        &format!("link set box address {mac}\naddr add {address}/24 dev box\nlink set box up"),
    )?;
    Ok(Side { node, container, address, mac })
}

impl Side {
    fn knows(&self, other: &Self) -> Result<()> {
        self.node
            .sh(&format!("bridge fdb add {} dev vx0 dst {} self permanent", other.mac, other.node.v4))?;
        self.node.sh(&format!("bridge fdb add {} dev vx0 master static", other.mac))?;
        let neighbour = format!("neigh add {} lladdr {} dev box nud permanent", other.address, other.mac);
        site::batch(&self.container, &neighbour)
    }
}
