//! How large the packets of overlay networks may be: what the way to the other nodes carries, less what the tunnel adds.

use std::net::IpAddr;

use netd_sys::KernelError;
use netd_sys::netlink::addr::Addr;
use netd_sys::netlink::link::Link;
use netd_sys::netlink::route::Way;

use super::{GROUP, Kernel};
use crate::model::{Model, Network};

/// Ethernet, VXLAN, UDP and IP around every packet.
const OVER_V4: u32 = 50;
const OVER_V6: u32 = 70;
/// Where nothing is known of the way.
const USUAL: u32 = 1500;
/// What IPv6 has every link carry.
pub(super) const LEAST: u32 = 1280;

/// The narrowest place between this node and the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Underlay {
    pub mtu: u32,
    /// The device it is at, or the other node's address that the kernel knows of a narrow way to.
    pub narrowest: String,
    /// The devices that lead to other nodes.
    pub links: Vec<u32>,
    overhead: u32,
}

impl Underlay {
    /// Without the kernel: every address's way as it was found.
    pub(super) fn of(vtep: IpAddr, links: &[Link], addresses: &[Addr], ways: &[(IpAddr, Way)]) -> Self {
        let overhead = if vtep.is_ipv4() { OVER_V4 } else { OVER_V6 };
        let own = addresses.iter().find(|addr| addr.address.ip() == vtep).map(|addr| addr.link);
        let used = own.into_iter().chain(ways.iter().map(|(_, way)| way.link));
        let devices: Vec<&Link> = used
            .filter_map(|index| links.iter().find(|link| link.index == index))
            .filter(|link| !link.loopback && link.group != GROUP)
            .collect();
        let at_device = devices.iter().map(|link| (link.mtu, link.name.clone()));
        let on_route = ways.iter().filter_map(|(to, way)| Some((way.mtu?, format!("the way to {to}"))));
        let (mtu, narrowest) = at_device
            .chain(on_route)
            .min()
            .unwrap_or_else(|| (USUAL, "no device with a way to other nodes".into()));
        let mut links: Vec<u32> = devices.iter().map(|link| link.index).collect();
        links.sort_unstable();
        links.dedup();
        Self { mtu, narrowest, links, overhead }
    }

    #[cfg(test)]
    pub(crate) fn usual(vtep: IpAddr) -> Self {
        Self::of(vtep, &[], &[], &[])
    }

    /// The largest packet that fits.
    pub(crate) fn fits(&self) -> u32 {
        self.mtu.saturating_sub(self.overhead)
    }

    pub(crate) fn overhead(&self) -> u32 {
        self.overhead
    }
}

impl Kernel {
    /// Looks at the ways to other nodes' tunnel ends.
    pub(crate) fn look_at_underlay(
        &mut self,
        others: impl Iterator<Item = IpAddr>,
    ) -> Result<(), KernelError> {
        let Some(vtep) = self.vtep else { return Ok(()) };
        let mut ways = Vec::new();
        for other in others.filter(|other| other.is_ipv4() == vtep.address.is_ipv4()) {
            // A node that no route leads to narrows nothing.
            ways.extend(self.rtnl.way_to(other)?.map(|way| (other, way)));
        }
        let (links, addresses) = (self.rtnl.links()?, self.rtnl.addresses()?);
        self.underlay = Some(Underlay::of(vtep.address, &links, &addresses, &ways));
        Ok(())
    }

    /// Has the links of overlay networks follow it.
    pub(crate) fn resize_overlays(&mut self, model: &Model) -> Result<(), KernelError> {
        super::overlay::resize(self, model)
    }

    /// As it was when last looked at; none without a cluster.
    pub(crate) fn underlay(&self) -> Option<&Underlay> {
        self.underlay.as_ref()
    }

    /// What the links of a network have.
    pub(crate) fn mtu(&self, network: &Network) -> u32 {
        let fits = self.underlay.as_ref().filter(|_| super::overlay::is_overlay(network)).map(Underlay::fits);
        network.options.mtu.min(fits.unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_place_between_the_nodes_decides() {
        let link = |index, name: &str, mtu| Link { index, name: name.into(), mtu, ..Link::default() };
        let mut links =
            vec![link(1, "lo", 65_536), link(2, "eth0", 9000), link(3, "eth1", 1500), link(4, "eth2", 1400)];
        links[0].loopback = true;
        let at = |link, text: &str| Addr { link, address: text.parse().expect("address") };
        let addresses = [at(1, "127.0.0.1/8"), at(2, "192.0.2.1/24"), at(2, "2001:db8::1/64")];
        let to = |text: &str, link, mtu| (text.parse().expect("address"), Way { link, is_local: false, mtu });
        let fits = |vtep: &str, ways: &[(IpAddr, Way)]| {
            let underlay = Underlay::of(vtep.parse().expect("address"), &links, &addresses, ways);
            (underlay.fits(), underlay.narrowest)
        };
        assert_eq!(fits("192.0.2.1", &[]), (8950, "eth0".into()));
        assert_eq!(fits("2001:db8::1", &[]), (8930, "eth0".into()));
        assert_eq!(
            fits("192.0.2.1", &[to("192.0.2.2", 2, None), to("198.51.100.2", 3, None)]),
            (1450, "eth1".into())
        );
        let narrow = to("192.0.2.9", 2, Some(1300));
        assert_eq!(fits("192.0.2.1", &[narrow]), (1250, "the way to 192.0.2.9".into()));
        let nowhere = "no device with a way to other nodes";
        assert_eq!(fits("203.0.113.5", &[]), (1450, nowhere.into()));
        assert_eq!(fits("127.0.0.1", &[to("127.0.0.1", 1, None)]), (1450, nowhere.into()), "the host itself");
    }
}
