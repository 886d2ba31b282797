//! Whether the kernel holds what a sandbox's record says: only looked at, nothing is put right.

use std::sync::Arc;

use netd_api::sandbox::Fault;
use netd_sys::KernelError;
use netd_sys::netlink::Rtnl;
use netd_sys::netlink::addr::Addr;
use netd_sys::netlink::link::Link;
use netd_sys::netlink::route::Route;
use netd_sys::netns::Netns;

use super::{World, find, wire};
use crate::driver::{Gateways, shaping_device};
use crate::error::Result;
use crate::model::{Endpoint, Mode, Network, Sandbox};

/// Everything that is wrong, endpoint by endpoint.
pub(crate) fn sandbox(world: &mut World, wanted: &str) -> Result<Vec<Fault>> {
    let sandbox = find::sandbox(world.model(), wanted)?;
    let whole = |detail: String| vec![Fault { network: None, detail }];
    if !matches!(sandbox.mode, Mode::Bridge | Mode::None) {
        return Ok(wire::open_netns(&sandbox)
            .err()
            .map(|error| whole(error.to_string()))
            .unwrap_or_default());
    }
    let inside = match wire::open_netns(&sandbox) {
        Ok(netns) => Inside::look(&netns)?,
        Err(error) => return Ok(whole(error.to_string())),
    };
    let mut faults = Vec::new();
    for endpoint in &sandbox.endpoints {
        let Some(network) = world.model().networks.get(&endpoint.network).cloned() else { continue };
        let gateways = match network.internal {
            true => Gateways::default(),
            false => wire::gateways(&sandbox, endpoint, world.model()),
        };
        let mut found = inside.faults(endpoint, gateways);
        found.extend(outside(world, &network, endpoint)?);
        let name = Some(network.name.to_string());
        faults.extend(found.into_iter().map(|detail| Fault { network: name.clone(), detail }));
    }
    faults.extend(unserved(world, &sandbox).map(|detail| Fault { network: None, detail }));
    Ok(faults)
}

/// What the sandbox's own namespace has.
struct Inside {
    links: Vec<Link>,
    addresses: Vec<Addr>,
    routes: Vec<Route>,
}

impl Inside {
    fn look(netns: &Netns) -> Result<Self, KernelError> {
        let mut rtnl = Rtnl::open_in(netns)?;
        Ok(Self { links: rtnl.links()?, addresses: rtnl.addresses()?, routes: rtnl.routes()? })
    }

    fn faults(&self, endpoint: &Endpoint, gateways: Gateways) -> Vec<String> {
        let device = &*endpoint.interface;
        let Some(link) = self.links.iter().find(|link| link.name == device) else {
            return vec![format!("the device {device} is gone")];
        };
        let mut faults = Vec::new();
        if !link.up {
            faults.push(format!("the device {device} is down"));
        }
        for own in endpoint.addresses() {
            let has = |found: &Addr| found.link == link.index && found.address.ip() == own;
            if !self.addresses.iter().any(has) {
                faults.push(format!("the device {device} does not have the address {own}"));
            }
        }
        for gateway in [gateways.v4, gateways.v6].into_iter().flatten() {
            let leads = |route: &Route| {
                route.is_default() && route.gateway == Some(gateway) && route.link == Some(link.index)
            };
            if !self.routes.iter().any(leads) {
                faults.push(format!("there is no default route by {gateway} through {device}"));
            }
        }
        faults
    }
}

/// The host's end.
fn outside(world: &mut World, network: &Network, endpoint: &Endpoint) -> Result<Vec<String>, KernelError> {
    let mut faults = Vec::new();
    let bridge = world.kernel.rtnl.link(&*network.bridge)?;
    let port = &*endpoint.host_link;
    match (world.kernel.rtnl.link(port)?, &bridge) {
        (_, None) => faults.push(format!("the bridge {} is gone", network.bridge)),
        (None, _) => faults.push(format!("the device {port} is gone")),
        (Some(link), Some(bridge)) if link.master != Some(bridge.index) => {
            faults.push(format!("the device {port} is no port of {}", network.bridge));
        }
        (Some(link), _) if !link.up => faults.push(format!("the device {port} is down")),
        _ => {}
    }
    if let Some(device) = shaping_device(endpoint)
        && world.kernel.rtnl.link(&*device)?.is_none()
    {
        faults.push(format!("the device {device}, which keeps its rate, is gone"));
    }
    Ok(faults)
}

/// Names and ports.
fn unserved(world: &World, sandbox: &Arc<Sandbox>) -> impl Iterator<Item = String> + use<> {
    let (view, listeners) = crate::tables::served(sandbox, world.model());
    world.reconcile.lacks(view.as_ref(), &listeners).into_iter().map(|key| format!("{key} is not served"))
}
