//! Addresses of services on the network's bridge: one each, with no subnet, beside the gateway's. Repeatable, as all of
//! the driver is.
//!
//! Each has a route of ours to it that prefers the gateway's address as source. The kernel would take the service's own
//! for what the host asks there, and an answer by UDP to that is for the service again. IPv4 takes the first route, so
//! ours stands before the kernel's, by which the address stays the host's should somebody take the gateway's off, and our
//! route with it. IPv6 takes the least metric, and the kernel's is 0, so that one has to go.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use netd_sys::KernelError;
use netd_sys::netlink::addr::{self, Addr};
use netd_sys::netlink::route::{self, Route};
use netd_sys::netlink::{Op, Rtnl};
use nix::libc;

use super::Kernel;
use crate::error::Chain;
use crate::model::Network;

const ABSENT: &[i32] = &[libc::ENODEV, libc::EADDRNOTAVAIL];
const NO_ROUTE: &[i32] = &[libc::ENODEV, libc::ESRCH];

/// How often the kernel is asked whether it has made its route, and how long after one another: here, and by the
/// background where it is busy with other links.
const HERE: (u32, Duration) = (20, Duration::from_micros(100));
const LATER: (u32, Duration) = (100, Duration::from_millis(5));

/// The host answers at these from now on. They are never the source of what the host itself sends: the gateway's is.
pub(super) fn put(kernel: &mut Kernel, network: &Network, vips: &[IpAddr]) -> Result<(), KernelError> {
    let Some(bridge) = kernel.rtnl.link(&*network.bridge)? else { return Ok(()) };
    let adds = vips.iter().map(|vip| addr::add_alias(on(bridge.index, *vip))).collect();
    let mut new = BTreeSet::new();
    for (vip, added) in vips.iter().zip(kernel.rtnl.attempt(adds)?) {
        match added {
            Err(error) if error.errno() == Some(libc::EEXIST) => {}
            added => {
                added?;
                new.insert(*vip);
            }
        }
    }
    let routes: Vec<Route> = vips.iter().filter_map(|vip| way(network, bridge.index, *vip)).collect();
    let mut own6 = Vec::new();
    for (route, made) in routes.iter().zip(kernel.rtnl.attempt(routes.iter().map(prefer).collect())?) {
        match made {
            Err(error) if error.errno() == Some(libc::EEXIST) => {}
            // Somebody has taken the gateway's address off. The next start puts it back; until then the kernel's will do.
            Err(error) if error.errno() == Some(libc::EINVAL) => {}
            made => {
                made?;
                own6.extend(route.destination.is_ipv6().then(|| route.clone()));
            }
        }
    }
    let (new, old) = own6.into_iter().partition(|route| new.contains(&route.destination.ip()));
    give_way(&mut kernel.rtnl, old, (1, Duration::ZERO))?;
    let late = give_way(&mut kernel.rtnl, new, HERE)?;
    if !late.is_empty() {
        kernel.background.run(move || {
            if let Err(error) = Rtnl::open().and_then(|mut rtnl| give_way(&mut rtnl, late, LATER)) {
                tracing::warn!(error = %Chain(&error), "services' addresses are the source of what the host asks there");
            }
        });
    }
    Ok(())
}

pub(super) fn remove(kernel: &mut Kernel, network: &Network, vips: &[IpAddr]) -> Result<(), KernelError> {
    let Some(bridge) = kernel.rtnl.link(&*network.bridge)? else { return Ok(()) };
    // The kernel removes with the address what it has made itself.
    let routes = vips.iter().filter_map(|vip| way(network, bridge.index, *vip));
    let routes = routes.map(|route| route::delete(&route).forgiving(NO_ROUTE));
    let addresses = vips.iter().map(|vip| addr::delete(on(bridge.index, *vip)).forgiving(ABSENT));
    kernel.rtnl.transact(routes.chain(addresses).collect())
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
    let addresses = found.map(|found| found.address);
    // Ours outlive an address that somebody else takes off.
    let ours = |found: &Route| Some(found) == way(network, bridge.index, found.destination.ip()).as_ref();
    let routes = kernel.rtnl.local_routes(bridge.index)?.into_iter().map(|mut found| {
        found.metric = None;
        found
    });
    let routes = routes.filter(ours).map(|found| found.destination);
    let strays: BTreeSet<IpAddr> =
        addresses.chain(routes).filter(|found| is_stray(*found)).map(|found| found.ip()).collect();
    remove(kernel, network, &strays.into_iter().collect::<Vec<_>>())?;
    put(kernel, network, vips)
}

/// Removes the kernel's routes beside these, and gives those back that it has not made. It makes them a moment after
/// the address, by the work that looks for duplicates of it, even where nothing is to be looked for.
fn give_way(
    rtnl: &mut Rtnl,
    mut routes: Vec<Route>,
    (tries, pause): (u32, Duration),
) -> Result<Vec<Route>, KernelError> {
    for _ in 0..tries {
        if routes.is_empty() {
            break;
        }
        let removed = rtnl.attempt(routes.iter().map(route::delete_kernels).collect())?;
        let mut late = Vec::new();
        for (route, removed) in routes.into_iter().zip(removed) {
            match removed {
                Err(error) if error.errno() == Some(libc::ESRCH) => late.push(route),
                removed => removed?,
            }
        }
        routes = late;
        if !routes.is_empty() {
            std::thread::park_timeout(pause);
        }
    }
    Ok(routes)
}

/// The host's own way to a service's address.
fn way(network: &Network, link: u32, vip: IpAddr) -> Option<Route> {
    let subnet = network.subnets.iter().find(|subnet| subnet.subnet.contains(vip))?;
    Some(Route::to_own(vip, subnet.gateway, link))
}

fn prefer(route: &Route) -> Op<'static> {
    if route.destination.is_ipv4() { route::prepend(route) } else { route::replace(route) }
}

fn on(link: u32, vip: IpAddr) -> Addr {
    Addr { link, address: IpNetwork::from(vip) }
}
