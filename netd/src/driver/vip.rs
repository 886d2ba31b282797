//! Addresses of services on the network's bridge: one each, with no subnet, beside the gateway's. Repeatable, as all of
//! the driver is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netd_sys::KernelError;
use netd_sys::netlink::addr::{self, Addr};
use nix::libc;

use super::Kernel;
use crate::model::Network;

const THERE: &[i32] = &[libc::EEXIST];
const ABSENT: &[i32] = &[libc::ENODEV, libc::EADDRNOTAVAIL];

/// The host answers at these from now on. They are never the source of what the host itself sends: the gateway's is.
pub(super) fn put(kernel: &mut Kernel, network: &Network, vips: &[IpAddr]) -> Result<(), KernelError> {
    let Some(bridge) = kernel.rtnl.link(&*network.bridge)? else { return Ok(()) };
    let ops = vips.iter().map(|vip| addr::add_alias(on(bridge.index, *vip)).forgiving(THERE)).collect();
    kernel.rtnl.transact(ops)
}

pub(super) fn remove(kernel: &mut Kernel, network: &Network, vips: &[IpAddr]) -> Result<(), KernelError> {
    let Some(bridge) = kernel.rtnl.link(&*network.bridge)? else { return Ok(()) };
    let ops = vips.iter().map(|vip| addr::delete(on(bridge.index, *vip)).forgiving(ABSENT)).collect();
    kernel.rtnl.transact(ops)
}

/// These and no others: what a service has left that went while nobody looked is taken off. Addresses that were on an
/// adopted bridge before us stay.
pub(super) fn sync(kernel: &mut Kernel, network: &Network, vips: &[IpAddr]) -> Result<(), KernelError> {
    let Some(bridge) = kernel.rtnl.link(&*network.bridge)? else { return Ok(()) };
    let wanted: BTreeSet<IpAddr> = vips.iter().copied().collect();
    let is_stray = |address: IpNetwork| {
        let ip = address.ip();
        let is_alias = address == IpNetwork::from(ip) && !wanted.contains(&ip);
        let of_ours = network.subnets.iter().any(|subnet| subnet.subnet.contains(ip) && subnet.gateway != ip);
        let was_there = network.adopted_bridge.iter().flatten().any(|before| *before == ip);
        is_alias && of_ours && !was_there
    };
    let found = kernel.rtnl.addresses()?.into_iter().filter(|found| found.link == bridge.index);
    let strays: Vec<IpAddr> =
        found.filter(|found| is_stray(found.address)).map(|found| found.address.ip()).collect();
    remove(kernel, network, &strays)?;
    put(kernel, network, vips)
}

fn on(link: u32, vip: IpAddr) -> Addr {
    Addr { link, address: IpNetwork::from(vip) }
}
