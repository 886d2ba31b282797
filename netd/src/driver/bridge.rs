//! The bridge driver: one Linux bridge a network, the gateway's addresses on it, one veth pair an endpoint.
//!
//! Everything has a name that follows from an id, so each function here can be repeated after a crash.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use netd_sys::netlink::addr::{self, Addr};
use netd_sys::netlink::link::{self, Bridge, Peer, Port, Veth};
use netd_sys::netlink::route::{self, Route};
use netd_sys::netlink::{Op, Rtnl};
use netd_sys::netns::Netns;
use netd_sys::{KernelError, sysctl};
use nix::libc;

use super::reaper::delete_doomed;
use super::{GROUP, Gateways, Kernel, offload, overlay};
use crate::model::{Endpoint, Network, link_local};

/// Together the longest that an attach waits for the kernel to put a link into service.
const ASKED: u32 = 20;
const BETWEEN: Duration = Duration::from_micros(100);
const GONE: &[i32] = &[libc::ENODEV];
const THERE: &[i32] = &[libc::EEXIST];

/// Makes the bridge unless it is there, and gives it the gateway's addresses.
pub(super) fn ensure(kernel: &mut Kernel, network: &Network, mtu: u32) -> Result<(), KernelError> {
    let (v4, v6) = families(network);
    enable_forwarding(v4, v6, &mut kernel.rtnl)?;
    let name = &*network.bridge;
    let mut ops = Vec::new();
    if kernel.rtnl.link(name)?.is_none() {
        let mac = Some(bridge_mac(&network.id));
        ops.push(link::bridge(&Bridge { name, mac, mtu: Some(mtu), group: GROUP }));
    }
    if network.adopted_bridge.is_none() {
        ops.push(link::no_link_local(name));
    }
    ops.push(link::up(name));
    kernel.rtnl.transact(ops)?;
    let index = index_of(&mut kernel.rtnl, name)?;
    // The kernel would first probe for two seconds whether another has this address. Until then it asks nobody on the link
    // for the neighbour of a packet that comes from elsewhere, and drops that.
    let own = link_local(bridge_mac(&network.id)).into();
    let own = (v6 && network.adopted_bridge.is_none()).then(|| on(index, own, 64));
    let addresses = gateway_addresses(network, index).chain(own);
    kernel.rtnl.transact(addresses.map(|addr| addr::add(addr).forgiving(THERE)).collect())
}

/// Deletes the bridge and waits for it, so that its name is free; of a bridge that was there before us only the
/// addresses go that we have given it.
pub(super) fn remove(kernel: &mut Kernel, network: &Network) -> Result<(), KernelError> {
    let Some(found) = kernel.rtnl.link(&*network.bridge)? else { return Ok(()) };
    if let Some(before) = &network.adopted_bridge {
        let absent = &[libc::ENODEV, libc::EADDRNOTAVAIL];
        let ops = gateway_addresses(network, found.index)
            .filter(|addr| !before.contains(&addr.address.ip()))
            .map(|addr| addr::delete(addr).forgiving(absent))
            .collect();
        return kernel.rtnl.transact(ops);
    }
    if found.group != GROUP {
        return Ok(());
    }
    kernel.rtnl.transact(vec![link::delete(found.index).forgiving(GONE)])
}

/// One request makes the pair with the far end inside; one more, inside, brings it to life. Gives the far end's index.
pub(super) fn attach(
    kernel: &mut Kernel,
    network: &Network,
    endpoint: &Endpoint,
    netns: &Netns,
    gateways: Gateways,
) -> Result<u32, KernelError> {
    let bridge = index_of(&mut kernel.rtnl, &network.bridge)?;
    make_pair(kernel, network, endpoint, bridge, Far { name: &endpoint.interface, netns })?;
    let (mut inside, index) = configure(network, endpoint, netns, gateways)?;
    super::shape::apply(&mut kernel.rtnl, endpoint)?;
    // Last, so that the port has its carrier when it comes up and its bridge forwards from the first packet on.
    kernel.rtnl.transact(vec![link::up(&*endpoint.host_link)])?;
    in_service(&mut kernel.rtnl, &*endpoint.host_link)?;
    in_service(&mut kernel.rtnl, bridge)?;
    in_service(&mut inside, index)?;
    Ok(index)
}

/// The pair with its far end in the host's namespace, down.
pub(super) fn offer(
    kernel: &mut Kernel,
    network: &Network,
    endpoint: &Endpoint,
    far: &str,
) -> Result<(), KernelError> {
    let bridge = index_of(&mut kernel.rtnl, &network.bridge)?;
    let host = kernel.host.try_clone()?;
    make_pair(kernel, network, endpoint, bridge, Far { name: far, netns: &host })?;
    kernel.rtnl.transact(vec![link::up(&*endpoint.host_link)])
}

/// The near end has been up for longer than the far one, so its carrier is news that the kernel may take up to a second
/// to act on unless asked.
pub(super) fn taken_over(
    kernel: &mut Kernel,
    network: &Network,
    endpoint: &Endpoint,
    netns: &Netns,
) -> Result<Option<String>, KernelError> {
    let near = kernel.rtnl.link(&*endpoint.host_link)?;
    let Some(index) = near.and_then(|near| near.peer) else { return Ok(None) };
    let mut inside = Rtnl::open_in(netns)?;
    // An index is unique in one namespace only: the same number may be somebody else's device there.
    let far = inside.link(index)?.filter(|far| far.mac == Some(endpoint.mac) && far.up);
    let Some(far) = far else { return Ok(None) };
    in_service(&mut kernel.rtnl, &*endpoint.host_link)?;
    in_service(&mut kernel.rtnl, &*network.bridge)?;
    in_service(&mut inside, index)?;
    kernel.background.announce(netns, index, endpoint);
    Ok(Some(far.name))
}

pub(super) fn replug(kernel: &mut Kernel, network: &Network, endpoint: &Endpoint) -> Result<(), KernelError> {
    let near = &*endpoint.host_link;
    let bridge = index_of(&mut kernel.rtnl, &network.bridge)?;
    kernel.rtnl.transact(vec![link::master(near, bridge)])?;
    let mut ops: Vec<Op<'_>> = isolation(network, endpoint).into_iter().collect();
    if overlay::is_overlay(network) {
        ops.extend(overlay::guarded(index_of(&mut kernel.rtnl, near)?, endpoint.mac));
    }
    ops.push(link::up(near));
    kernel.rtnl.transact(ops)
}

pub(super) fn unplug(kernel: &mut Kernel, name: &str) -> Result<(), KernelError> {
    kernel.rtnl.transact(vec![link::nomaster(name).forgiving(GONE), link::down(name).forgiving(GONE)])
}

/// Takes a port out of service at once (0.25 ms) and leaves the deletion (40 ms) to the reaper.
pub(super) fn cut(kernel: &mut Kernel, name: &str) -> Result<(), KernelError> {
    let doom = vec![
        link::nomaster(name).forgiving(GONE),
        link::down(name).forgiving(GONE),
        link::group(name, super::DOOMED).forgiving(GONE),
    ];
    let result = kernel.rtnl.transact(doom);
    kernel.reaper.wake();
    result
}

/// Another size for the packets of an endpoint, and of the bridge for what the host sends there.
pub(super) fn resize(
    kernel: &mut Kernel,
    network: &Network,
    endpoint: &Endpoint,
    netns: &Netns,
    size: u32,
) -> Result<(), KernelError> {
    let mut ops = vec![link::gso(&*endpoint.host_link, size)];
    ops.extend(bridge_size(network, size));
    kernel.rtnl.transact(ops)?;
    Rtnl::open_in(netns)?.transact(vec![link::gso(&*endpoint.interface, size).forgiving(GONE)])
}

/// A bridge takes no more than its ports do, so there has to be one; one of somebody else is left as it is.
fn bridge_size(network: &Network, size: u32) -> Option<Op<'static>> {
    network.adopted_bridge.is_none().then(|| link::gso(&*network.bridge, size))
}

/// Default routes through exactly these endpoints; those through others go.
pub(super) fn route(netns: &Netns, routes: &[(&Endpoint, Gateways)]) -> Result<(), KernelError> {
    let mut rtnl = Rtnl::open_in(netns)?;
    for (endpoint, gateways) in routes {
        let Some(found) = rtnl.link(&*endpoint.interface)? else { continue };
        let ops = [gateways.v4, gateways.v6].into_iter().flatten();
        rtnl.transact(
            ops.map(|gateway| route::replace(&Route::default_via(gateway, found.index))).collect(),
        )?;
    }
    let wanted: Vec<IpAddr> = routes.iter().flat_map(|(_, g)| [g.v4, g.v6]).flatten().collect();
    let stale = rtnl.routes()?.into_iter().filter(|found| {
        found.table == route::MAIN
            && found.is_default()
            && found.gateway.is_some_and(|via| !wanted.contains(&via))
    });
    let ops = stale.map(|old| route::delete(&old).forgiving(&[libc::ESRCH])).collect();
    rtnl.transact(ops)
}

/// Isolated ports reach the gateway, not each other.
pub(super) fn keep_apart(rtnl: &mut Rtnl, ports: &[Arc<str>], apart: bool) -> Result<(), KernelError> {
    let isolated = Port { isolated: Some(apart), ..Port::default() };
    rtnl.transact(ports.iter().map(|name| link::port(&**name, isolated).forgiving(GONE)).collect())
}

/// Where the far end of a pair is made, and under which name.
#[derive(Clone, Copy)]
struct Far<'a> {
    name: &'a str,
    netns: &'a Netns,
}

fn make_pair(
    kernel: &mut Kernel,
    network: &Network,
    endpoint: &Endpoint,
    bridge: u32,
    far: Far<'_>,
) -> Result<(), KernelError> {
    if let Err(error) = try_pair(kernel, network, endpoint, bridge, far) {
        if error.errno() != Some(libc::EEXIST) {
            return Err(error);
        }
        // The device of an endpoint that has just left may still wait for its deletion.
        delete_doomed(&mut kernel.rtnl);
        try_pair(kernel, network, endpoint, bridge, far)?;
    }
    Ok(())
}

fn try_pair(
    kernel: &mut Kernel,
    network: &Network,
    endpoint: &Endpoint,
    bridge: u32,
    far: Far<'_>,
) -> Result<(), KernelError> {
    use std::os::fd::AsFd as _;
    let name = &*endpoint.host_link;
    let size = offload::size(network, &kernel.out);
    let large = size > offload::USUAL;
    let pair = Veth {
        name,
        master: Some(bridge),
        group: GROUP,
        mtu: Some(kernel.mtu(network)),
        gso: large.then_some(size),
        peer: Peer { netns: far.netns.as_fd(), name: far.name, index: None, mac: Some(endpoint.mac) },
    };
    kernel.rtnl.transact(vec![link::veth(&pair)])?;
    // Both only after the port exists: the kernel knows no other order.
    let mut ops: Vec<Op<'_>> = large.then(|| bridge_size(network, size)).flatten().into_iter().collect();
    ops.extend(isolation(network, endpoint));
    if overlay::is_overlay(network) {
        ops.extend(overlay::guarded(index_of(&mut kernel.rtnl, name)?, endpoint.mac));
    }
    kernel.rtnl.transact(ops)
}

/// Isolated ports reach the gateway, not each other.
fn isolation(network: &Network, endpoint: &Endpoint) -> Option<Op<'static>> {
    let isolated = Port { isolated: Some(true), ..Port::default() };
    (!network.options.icc).then(|| link::port(&*endpoint.host_link, isolated))
}

fn configure(
    network: &Network,
    endpoint: &Endpoint,
    netns: &Netns,
    gateways: Gateways,
) -> Result<(Rtnl, u32), KernelError> {
    let mut rtnl = Rtnl::open_in(netns)?;
    let interface = &*endpoint.interface;
    let index = index_of(&mut rtnl, interface)?;
    let mut ops: Vec<Op<'_>> = vec![link::no_link_local(index), link::up("lo"), link::up(index)];
    if let Some((v4, prefix)) = endpoint.v4 {
        ops.push(addr::replace(on(index, v4.into(), prefix)));
    }
    ops.extend(endpoint.link_local().map(|own| addr::replace(on(index, own.into(), 64))));
    if let Some((v6, prefix)) = endpoint.v6 {
        ops.push(addr::replace(on(index, v6.into(), prefix)));
    }
    if !network.internal {
        let gateways = [gateways.v4, gateways.v6].into_iter().flatten();
        ops.extend(gateways.map(|gateway| route::replace(&Route::default_via(gateway, index))));
    }
    rtnl.transact(ops)?;
    Ok((rtnl, index))
}

/// Sees to it that the kernel sends what the link is given. A link that gets its carrier is put into service behind the
/// scenes, in this order: port, bridge (by its first port), the far end; until then packets are dropped. From Linux 6.8
/// on, asking is enough to have it done. A bridge with a spanning tree takes its own time, which nobody waits for.
fn in_service<'a>(rtnl: &mut Rtnl, link: impl Into<link::Which<'a>>) -> Result<(), KernelError> {
    let link = link.into();
    for _ in 0..ASKED {
        match rtnl.link(link)? {
            Some(found) if !found.running => std::thread::park_timeout(BETWEEN),
            _ => break,
        }
    }
    Ok(())
}

/// The host forwards between bridges and the outside. IPv6 forwarding makes the kernel ignore router advertisements
/// unless told otherwise, which would cost the host its own default route.
fn enable_forwarding(v4: bool, v6: bool, rtnl: &mut Rtnl) -> Result<(), KernelError> {
    if v4 {
        sysctl::write("net/ipv4/ip_forward", "1")?;
    }
    if v6 && sysctl::read("net/ipv6/conf/all/forwarding")? != "1" {
        for link in rtnl.links()?.iter().filter(|link| link.group != GROUP) {
            let key = format!("net/ipv6/conf/{}/accept_ra", link.name);
            if sysctl::read(&key).is_ok_and(|value| value == "1") {
                sysctl::write(&key, "2")?;
            }
        }
        sysctl::write("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn families(network: &Network) -> (bool, bool) {
    let has = |v4: bool| network.subnets.iter().any(|subnet| subnet.subnet.is_ipv4() == v4);
    (has(true), has(false))
}

fn gateway_addresses(network: &Network, link: u32) -> impl Iterator<Item = Addr> + '_ {
    network.subnets.iter().map(move |subnet| on(link, subnet.gateway, subnet.subnet.prefix()))
}

fn on(link: u32, address: IpAddr, prefix: u8) -> Addr {
    let address = IpNetwork::new(address, prefix).unwrap_or_else(|_| IpNetwork::from(address));
    Addr { link, address }
}

pub(super) fn index_of(rtnl: &mut Rtnl, name: &str) -> Result<u32, KernelError> {
    match rtnl.link(name)? {
        Some(link) => Ok(link.index),
        None => Err(KernelError::new("find the link", name, nix::errno::Errno::ENODEV)),
    }
}

/// Locally administered, the rest from the network's id: it stays when ports come and go.
fn bridge_mac(id: &str) -> [u8; 6] {
    let mut mac = [0x02, 0x6e, 0, 0, 0, 0];
    for (byte, digits) in mac[2..].iter_mut().zip(id.as_bytes().chunks(2)) {
        *byte =
            std::str::from_utf8(digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
    }
    mac
}

/// The MAC address that goes with an IPv4 address: a neighbour's entry stays right when the address is reused.
pub(crate) fn mac_for(v4: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = v4.octets();
    [0x02, 0x6e, a, b, c, d]
}
