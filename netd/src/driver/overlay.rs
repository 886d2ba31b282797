//! The overlay driver: on every node with endpoints the same bridge (device, gateway and MAC address are the same
//! everywhere) and a VXLAN tunnel as one of its ports. Endpoints are attached as to any bridge.
//!
//! Nothing is learned and nothing is flooded between nodes: where other nodes' endpoints are stands in forwarding and
//! neighbour entries, from which the bridge also answers ARP and neighbour discovery. What is for nobody known is dropped.

mod shortcut;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netd_sys::KernelError;
use netd_sys::netlink::link::{self, Port};
use netd_sys::netlink::neigh::{self, Neighbour};
use netd_sys::netlink::vxlan::{self, Tunnel, Vxlan};
use netd_sys::netlink::{Op, Rtnl, fdb};
use netd_sys::netns::Netns;
use nix::errno::Errno;
use nix::libc;

use super::reaper::delete_doomed;
use super::{DOOMED, GROUP, Kernel, bridge};
use crate::error::Chain;
use crate::model::{Driver, Endpoint, Id, Model, Network, Sandbox, SandboxKey};
use crate::tables::{Known, Mac, NeighbourEntry};
pub(super) use shortcut::Shortcuts;

/// This node's end of all tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vtep {
    pub address: IpAddr,
    pub port: u16,
}

/// A network's devices, as long as nobody has made them anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    bridge: u32,
    tunnel: u32,
}

const GONE: &[i32] = &[libc::ENODEV];
/// Also what is left of IPv6 where the kernel has none.
const NO_NEIGHBOUR: &[i32] = &[libc::ENOENT, libc::EAFNOSUPPORT];

/// Makes bridge and tunnel unless they are there as they should be.
pub(super) fn ensure(kernel: &mut Kernel, network: &Network) -> Result<(), KernelError> {
    let wanted = wanted(kernel, network)?;
    let mtu = kernel.mtu(network);
    if kernel.rtnl.link(&*network.bridge)?.is_some_and(|link| link.group == DOOMED) {
        // Of an earlier presence, and so is the tunnel.
        delete_doomed(&mut kernel.rtnl);
    }
    bridge::ensure(kernel, network, mtu)?;
    let master = bridge::index_of(&mut kernel.rtnl, &network.bridge)?;
    let name = network.tunnel();
    let found = kernel.rtnl.link(&*name)?;
    let as_wanted =
        found.as_ref().is_some_and(|link| link.tunnel == Some(wanted) && link.master == Some(master));
    if !as_wanted {
        if found.is_some_and(|link| link.group == GROUP) {
            kernel.rtnl.transact(vec![link::delete(&*name).forgiving(GONE)])?;
        }
        let tunnel = Vxlan {
            name: &name,
            tunnel: wanted,
            mac: None,
            mtu,
            group: GROUP,
            master: Some(master),
            unfragmented: false,
        };
        make_tunnel(&mut kernel.rtnl, &tunnel)?;
    }
    let quiet = Port {
        learning: Some(false),
        flood: Some(false),
        answer_for: Some(true),
        // As all ports are, where sandboxes reach the gateway only.
        isolated: Some(!network.options.icc),
        ..Port::default()
    };
    kernel.rtnl.transact(vec![
        link::port(&*name, quiet),
        link::mtu(&*name, mtu),
        link::mtu(&*network.bridge, mtu),
        link::no_link_local(&*name),
        link::up(&*name),
    ])?;
    let tunnel = bridge::index_of(&mut kernel.rtnl, &name)?;
    if kernel.checksums_in_software {
        netd_sys::offload::set_checksums(&name, false)?;
    }
    kernel.shortcuts.tunnel(network, tunnel);
    kernel.present.insert(Arc::clone(&network.id), Present { bridge: master, tunnel });
    Ok(())
}

/// Its endpoints are gone, so that nobody is served by it any more. To take down bridge and tunnel needs 40 ms, to delete
/// them 50 ms more: all of it is left to the reaper.
pub(super) fn remove(kernel: &mut Kernel, network: &Network) -> Result<(), KernelError> {
    kernel.present.remove(&network.id);
    kernel.shortcuts.forget_tunnel(&network.id);
    let tunnel = network.tunnel();
    let mut ops = Vec::new();
    for name in [&*network.bridge, &*tunnel] {
        if let Some(link) = kernel.rtnl.link(name)?.filter(|link| link.group == GROUP) {
            ops.push(link::group(link.index, DOOMED).forgiving(GONE));
        }
    }
    let result = kernel.rtnl.transact(ops);
    kernel.reaper.wake();
    result
}

fn make_tunnel(rtnl: &mut Rtnl, tunnel: &Vxlan<'_>) -> Result<(), KernelError> {
    match rtnl.transact(vec![vxlan::vxlan(tunnel)]) {
        // A network that has just gone has had the same number, and its tunnel may still wait for its deletion.
        Err(error) if error.errno() == Some(libc::EEXIST) => {
            delete_doomed(rtnl);
            rtnl.transact(vec![vxlan::vxlan(tunnel)])
        }
        made => made,
    }
}

/// What has become different on a network that is present here.
pub(super) fn follow(
    kernel: &mut Kernel,
    network: &Network,
    entries: &[NeighbourEntry],
) -> Result<(), KernelError> {
    let Some(at) = kernel.present.get(&network.id).copied() else { return Ok(()) };
    let family = kernel.vtep.map(|vtep| vtep.address.is_ipv4());
    let ops = entries.iter().map(|entry| match *entry {
        NeighbourEntry::Vtep(mac, Some(vtep)) if Some(vtep.is_ipv4()) == family => {
            fdb::remote(at.tunnel, mac, vtep)
        }
        // A tunnel has one family: that node cannot be reached by this one.
        NeighbourEntry::Vtep(mac, _) => fdb::no_remote(at.tunnel, mac).forgiving(GONE),
        NeighbourEntry::Mac(address, Some(mac)) => neighbour(at.bridge, address, mac),
        NeighbourEntry::Mac(address, None) => forget(at.bridge, address),
    });
    let ops = ops.collect();
    kernel.rtnl.transact(ops)?;
    for entry in entries {
        if let NeighbourEntry::Vtep(mac, vtep) = entry {
            kernel.shortcuts.far(&network.id, *mac, vtep.is_some_and(|vtep| Some(vtep.is_ipv4()) == family));
        }
    }
    Ok(())
}

/// Reads what the kernel knows and makes it this: what is missing is added, what is different set right, what is there
/// beside it removed, whoever has put it there.
pub(super) fn sync(kernel: &mut Kernel, network: &Network, known: &Known) -> Result<(), KernelError> {
    let Some(at) = kernel.present.get(&network.id).copied() else { return Ok(()) };
    let (mut of_bridge, mut of_tunnel) = (BTreeSet::new(), BTreeMap::<Mac, BTreeSet<IpAddr>>::new());
    for entry in kernel.rtnl.forwarding(at.tunnel)? {
        match entry.remote {
            Some(remote) => drop(of_tunnel.entry(entry.mac).or_default().insert(remote)),
            None if entry.fixed => drop(of_bridge.insert(entry.mac)),
            None => {}
        }
    }
    let family = kernel.vtep.map(|vtep| vtep.address.is_ipv4());
    let vteps = || known.vteps.iter().filter(|(_, vtep)| Some(vtep.is_ipv4()) == family);
    let mut ops = Vec::new();
    let extra = of_bridge.iter().chain(of_tunnel.keys()).filter(|mac| {
        let several = of_tunnel.get(*mac).is_some_and(|remotes| remotes.len() > 1);
        several || known.vteps.get(*mac).is_none_or(|vtep| Some(vtep.is_ipv4()) != family)
    });
    ops.extend(extra.map(|mac| fdb::no_remote(at.tunnel, *mac)));
    let right = |mac: &Mac, vtep: &IpAddr| {
        of_bridge.contains(mac) && of_tunnel.get(mac).is_some_and(|remotes| remotes.iter().eq([vtep]))
    };
    ops.extend(
        vteps()
            .filter(|(mac, vtep)| !right(mac, vtep))
            .map(|(&mac, &vtep)| fdb::remote(at.tunnel, mac, vtep)),
    );

    let found = kernel.rtnl.neighbours_of(at.bridge)?;
    let found: BTreeMap<IpAddr, Mac> =
        found.iter().filter(|n| n.permanent).map(|n| (n.address, n.mac)).collect();
    let stale = found.keys().filter(|address| !known.macs.contains_key(address) && !address.is_multicast());
    ops.extend(stale.map(|&address| forget(at.bridge, address)));
    let missing = known.macs.iter().filter(|(address, mac)| found.get(address) != Some(mac));
    ops.extend(missing.map(|(&address, &mac)| neighbour(at.bridge, address, mac)));
    if !ops.is_empty() {
        tracing::debug!(network = %network.name, changes = ops.len(), "putting the neighbours of an overlay right");
    }
    kernel.rtnl.transact(ops)?;
    kernel.shortcuts.far_only(&network.id, &vteps().map(|(mac, _)| *mac).collect());
    Ok(())
}

/// Lets the endpoint's packets pass the bridge by, if its port is there.
pub(super) fn shorten(
    kernel: &mut Kernel,
    network: &Network,
    endpoint: &Endpoint,
) -> Result<(), KernelError> {
    if let Some(port) = kernel.rtnl.link(&*endpoint.host_link)? {
        kernel.shortcuts.join(network, endpoint, port.index);
    }
    Ok(())
}

/// Gives the links of every network that is present the size that the ways to other nodes allow.
pub(super) fn resize(kernel: &mut Kernel, model: &Model) -> Result<(), KernelError> {
    let sizes: BTreeMap<String, u32> =
        kernel.rtnl.links()?.into_iter().map(|link| (link.name, link.mtu)).collect();
    for network in model.networks.values() {
        if !kernel.has(network) {
            continue;
        }
        let mtu = kernel.mtu(network);
        if sizes.get(&*network.bridge) == Some(&mtu) {
            continue;
        }
        tracing::info!(network = %network.name, mtu, "the MTU follows the ways to other nodes");
        let tunnel = network.tunnel();
        let mut ops = vec![link::mtu(&*tunnel, mtu).forgiving(GONE)];
        for sandbox in model.sandboxes.by(&SandboxKey::On(Arc::clone(&network.id))) {
            for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.network == network.id) {
                ops.push(link::mtu(&*endpoint.host_link, mtu).forgiving(GONE));
                if let Err(error) = inside(sandbox, endpoint, mtu) {
                    tracing::warn!(sandbox = %sandbox.name, error = %Chain(&error), "cannot set its MTU");
                }
            }
        }
        ops.push(link::mtu(&*network.bridge, mtu).forgiving(GONE));
        kernel.rtnl.transact(ops)?;
    }
    Ok(())
}

fn inside(sandbox: &Sandbox, endpoint: &Endpoint, mtu: u32) -> Result<(), KernelError> {
    let netns = Netns::open(&sandbox.netns)?;
    if (netns.id().device, netns.id().inode) != sandbox.netns_identity {
        return Ok(());
    }
    Rtnl::open_in(&netns)?.transact(vec![link::mtu(&*endpoint.interface, mtu).forgiving(GONE)])
}

/// What an endpoint's port needs beside that of a plain bridge: only its own MAC address comes in by it and is sent
/// there, from the first frame on and without learning.
pub(super) fn guarded(link: u32, mac: Mac) -> Vec<Op<'static>> {
    let locked = Port { learning: Some(false), locked: Some(true), ..Port::default() };
    vec![link::port(link, locked), fdb::local(link, mac)]
}

pub(super) fn is_overlay(network: &Network) -> bool {
    matches!(network.driver, Driver::Overlay { .. })
}

/// Networks that are present here.
pub(super) type AllPresent = BTreeMap<Id, Present>;

fn wanted(kernel: &Kernel, network: &Network) -> Result<Tunnel, KernelError> {
    match (network.driver, kernel.vtep) {
        (Driver::Overlay { vni }, Some(Vtep { address, port })) => Ok(Tunnel { vni, local: address, port }),
        _ => {
            let cause =
                std::io::Error::other("this node belongs to no cluster: start it with --store etcd://...");
            Err(KernelError::new("make the overlay network", &network.name, cause))
        }
    }
}

fn neighbour(link: u32, address: IpAddr, mac: Mac) -> Op<'static> {
    neigh::replace(&Neighbour { link, address, mac, permanent: true })
        .forgiving(&[Errno::EAFNOSUPPORT as i32])
}

fn forget(link: u32, address: IpAddr) -> Op<'static> {
    let entry = Neighbour { link, address, mac: [0; 6], permanent: true };
    neigh::delete(&entry).forgiving(NO_NEIGHBOUR).forgiving(GONE)
}

#[cfg(test)]
pub(super) mod tests;
