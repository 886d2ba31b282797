//! Two nodes whose containers are joined as flannel joins them: a bridge and a VXLAN device each, told once and for all
//! where every container is; nothing learns and nothing is flooded.

use std::net::Ipv4Addr;

use anyhow::Result;
use netd_tests::{Host, Lab};

use crate::scenario::pair::Pair;
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
    Ok(Pair { name: crate::figures::PLAIN_VXLAN, client, server, address })
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
