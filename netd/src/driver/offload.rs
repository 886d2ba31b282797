//! How large the packets may be that links hand on whole. Beyond 64 KiB everything within a host gets faster by a third;
//! but what leaves by a device that takes 64 KiB at most is then cut up in software, which is four times slower. So a
//! network has large packets where nothing of it can leave, or where every way out takes them. Pure.

use std::collections::BTreeSet;

use netd_sys::netlink::link::Link;
use netd_sys::netlink::route::{Kind, Route};

use super::GROUP;
use crate::model::{BigTcp, Network};

/// More than twice of it gained nothing when it was measured.
pub(super) const LARGE: u32 = 196_608;
/// What every device takes: the largest packet of IP.
pub(super) const USUAL: u32 = 65_536;

/// The devices by which something can leave this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaysOut {
    pub links: BTreeSet<u32>,
    /// The largest packet that all of them take; none when there is no such device.
    narrowest: Option<u32>,
    /// Whether the kernel knows of large packets in both families (Linux 6.3).
    known: bool,
}

impl WaysOut {
    pub(super) fn of(links: &[Link], routes: &[Route]) -> Self {
        let routed: BTreeSet<u32> = routes
            .iter()
            .filter(|route| route.kind == Kind::Unicast)
            .filter_map(|route| route.link)
            .collect();
        let out: Vec<&Link> = links
            .iter()
            .filter(|link| routed.contains(&link.index) && !link.loopback && link.group != GROUP)
            .collect();
        let sizes = out.iter().flat_map(|link| below(link, links)).map(|link| link.gso.unwrap_or(USUAL));
        Self {
            narrowest: sizes.min(),
            links: out.iter().map(|link| link.index).collect(),
            known: links.iter().any(|link| link.gso.is_some()),
        }
    }
}

/// The device, and those that what it sends goes through: a bridge's ports, the parent of a VLAN.
fn below<'a>(link: &'a Link, links: &'a [Link]) -> impl Iterator<Item = &'a Link> {
    let parent = link.peer.filter(|_| link.kind.as_deref() != Some("veth") && link.peer_netns.is_none());
    links.iter().filter(move |other| {
        other.index == link.index || other.master == Some(link.index) || Some(other.index) == parent
    })
}

/// The size for a network's links. A bridge of somebody else may have ports that lead anywhere; an overlay has a tunnel,
/// which takes the usual and has the rest cut up.
pub(super) fn size(network: &Network, out: &WaysOut) -> u32 {
    if super::overlay::is_overlay(network) {
        return USUAL;
    }
    let unharmed = network.internal || out.narrowest.is_none_or(|narrowest| narrowest >= LARGE);
    let large = match network.options.big_tcp {
        BigTcp::On => true,
        BigTcp::Off => false,
        BigTcp::Auto => unharmed && network.adopted_bridge.is_none(),
    };
    if large && out.known { LARGE } else { USUAL }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Driver;
    use crate::testing;

    fn link(index: u32, name: &str, gso: u32) -> Link {
        Link { index, name: name.into(), gso: Some(gso), ..Link::default() }
    }

    fn route(link: u32, kind: Kind) -> Route {
        let to = "10.0.0.0/8".parse().expect("a network");
        Route { kind, ..Route::on_link(to, link) }
    }

    #[test]
    fn every_device_with_a_route_counts_with_what_lies_below_it() {
        let mut links = vec![
            link(1, "lo", USUAL),
            link(2, "eth0", 100_000),
            link(3, "br0", LARGE),
            link(4, "nd-1", USUAL),
        ];
        links[0].loopback = true;
        links[3].group = GROUP;
        let narrowest = |links: &[Link], of: &[u32], kind| {
            let routes: Vec<_> = of.iter().map(|&link| route(link, kind)).collect();
            WaysOut::of(links, &routes).narrowest
        };
        let unicast = Kind::Unicast;
        assert_eq!(narrowest(&links, &[], unicast), None);
        assert_eq!(narrowest(&links, &[1, 4], unicast), None, "loopback and our own lead nowhere else");
        assert_eq!(narrowest(&links, &[2], Kind::Local), None);
        assert_eq!(narrowest(&links, &[2, 3], unicast), Some(100_000));
        assert_eq!(narrowest(&links, &[3], unicast), Some(LARGE));
        links.push(Link { master: Some(3), ..link(5, "eth1", USUAL) });
        assert_eq!(narrowest(&links, &[3], unicast), Some(USUAL), "by its port");
        links.push(Link { kind: Some("vlan".into()), peer: Some(5), ..link(6, "eth1.7", LARGE) });
        assert_eq!(narrowest(&links, &[6], unicast), Some(USUAL), "by its parent");
        links.push(Link { gso: None, ..link(7, "tun0", LARGE) });
        assert_eq!(narrowest(&links, &[7], unicast), Some(USUAL), "what says nothing takes the usual");
    }

    #[test]
    fn packets_are_large_where_nothing_is_cut_up_for_it() {
        let network = testing::network("app", &[]);
        let internal = Network { internal: true, ..network.clone() };
        let overlay = Network { driver: Driver::Overlay { vni: 4096 }, ..network.clone() };
        let adopted = Network { adopted_bridge: Some(Vec::new()), ..internal.clone() };
        let with = |network: &Network, big_tcp| {
            let mut network = network.clone();
            network.options.big_tcp = big_tcp;
            network
        };
        for (network, narrowest, expected) in [
            (&network, Some(USUAL), USUAL),
            (&network, Some(LARGE), LARGE),
            (&network, None, LARGE),
            (&internal, Some(USUAL), LARGE),
            (&adopted, None, USUAL),
            (&with(&network, BigTcp::On), Some(USUAL), LARGE),
            (&with(&internal, BigTcp::Off), None, USUAL),
            (&with(&overlay, BigTcp::On), None, USUAL),
        ] {
            let out = WaysOut { narrowest, known: true, ..WaysOut::default() };
            assert_eq!(size(network, &out), expected, "{network:?} {narrowest:?}");
            let old_kernel = WaysOut { known: false, ..out };
            assert_eq!(size(network, &old_kernel), USUAL, "{network:?}");
        }
    }
}
