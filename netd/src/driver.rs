//! What the kernel holds for us: bridges, veth pairs, addresses, routes. A network's driver is one file below; the
//! functions here find its arm. Managers decide, drivers do; no driver reads or writes a record.

mod background;
mod bridge;
mod offload;
mod overlay;
mod probe;
mod reaper;
mod shape;
mod underlay;
mod vip;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use netd_sys::KernelError;
use netd_sys::netlink::Rtnl;
use netd_sys::netlink::link::Link;
use netd_sys::netns::Netns;

use crate::error::Chain;
use crate::model::{Driver, Endpoint, Model, Network, Sandbox, SandboxKey};
use crate::tables::{Known, NeighbourEntry};
pub(crate) use background::Background;
pub(crate) use bridge::mac_for;
pub(crate) use offload::WaysOut;
pub(crate) use overlay::Vtep;
pub(crate) use probe::{Outcome, Reach, Target, Trial, VNI as PROBE_VNI, answer, take};
pub(crate) use reaper::Reaper;
pub(crate) use shape::device as shaping_device;
pub(crate) use underlay::Underlay;

/// The link group of everything that is ours: what does not carry it, or [`DOOMED`], is not touched.
pub(crate) const GROUP: u32 = 0x6e64;
/// The group of what is about to be deleted in the background.
pub(crate) const DOOMED: u32 = 0x6e65;

/// The host's side of the kernel.
pub(crate) struct Kernel {
    pub host: Netns,
    pub rtnl: Rtnl,
    pub reaper: Reaper,
    pub background: Background,
    /// This node's end of the tunnels; none: it belongs to no cluster.
    pub vtep: Option<Vtep>,
    /// A device on the way to other nodes gets the checksums inside of tunnels wrong.
    checksums_in_software: bool,
    found: probe::Found,
    present: overlay::AllPresent,
    shortcuts: overlay::Shortcuts,
    /// As they were when last looked at.
    out: WaysOut,
    underlay: Option<Underlay>,
}

/// Through which gateways a sandbox reaches the rest of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gateways {
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
}

impl Kernel {
    pub(crate) fn open() -> Result<Self, KernelError> {
        let mut rtnl = Rtnl::open()?;
        let out = WaysOut::of(&rtnl.links()?, &rtnl.routes()?);
        Ok(Self {
            out,
            vtep: None,
            underlay: None,
            checksums_in_software: false,
            found: probe::Found::default(),
            present: overlay::AllPresent::default(),
            shortcuts: overlay::Shortcuts::default(),
            host: Netns::current()?,
            rtnl,
            reaper: Reaper::start()?,
            background: Background::start()?,
        })
    }

    /// Makes what the network needs in the host; what is there already is brought to what it should be.
    pub(crate) fn ensure_network(&mut self, network: &Network) -> Result<(), KernelError> {
        match network.driver {
            Driver::Bridge => told("ensure a network", &network.bridge, || {
                bridge::ensure(self, network, network.options.mtu)
            }),
            Driver::Overlay { .. } => {
                told("ensure a network", &network.bridge, || overlay::ensure(self, network))
            }
        }
    }

    /// Total and repeatable: gone is gone, or about to be deleted in the background.
    pub(crate) fn remove_network(&mut self, network: &Network) -> Result<(), KernelError> {
        match network.driver {
            Driver::Bridge => told("remove a network", &network.bridge, || bridge::remove(self, network)),
            Driver::Overlay { .. } => {
                told("remove a network", &network.bridge, || overlay::remove(self, network))
            }
        }
    }

    /// The host answers at these addresses of services. Nothing where the network is not present.
    pub(crate) fn put_vips(&mut self, network: &Network, vips: &[IpAddr]) -> Result<(), KernelError> {
        told("add addresses of services", &network.bridge, || vip::put(self, network, vips))
    }

    pub(crate) fn remove_vips(&mut self, network: &Network, vips: &[IpAddr]) -> Result<(), KernelError> {
        told("remove addresses of services", &network.bridge, || vip::remove(self, network, vips))
    }

    /// At these and no others.
    pub(crate) fn sync_vips(&mut self, network: &Network, vips: &[IpAddr]) -> Result<(), KernelError> {
        told("set right the addresses of services", &network.bridge, || vip::sync(self, network, vips))
    }

    /// Whether the overlay network has its devices here.
    pub(crate) fn has(&self, network: &Network) -> bool {
        self.present.contains_key(&network.id)
    }

    /// Has an overlay network know the endpoints of other nodes as they are now. Where it is not present, nothing.
    pub(crate) fn follow_neighbours(
        &mut self,
        network: &Network,
        entries: &[NeighbourEntry],
    ) -> Result<(), KernelError> {
        told("follow neighbours", &network.bridge, || overlay::follow(self, network, entries))
    }

    /// For an endpoint that is attached, by this control plane or an earlier one: the way past the bridge.
    pub(crate) fn shorten(&mut self, network: &Network, endpoint: &Endpoint) -> Result<(), KernelError> {
        overlay::shorten(self, network, endpoint)
    }

    /// The same from scratch: what the kernel has is read and put right.
    pub(crate) fn sync_neighbours(&mut self, network: &Network, known: &Known) -> Result<(), KernelError> {
        told("set right the neighbours", &network.bridge, || overlay::sync(self, network, known))
    }

    /// Puts the endpoint into the sandbox's namespace and on its network. Gives the index of its device there, for
    /// [`Background::announce`].
    pub(crate) fn attach(
        &mut self,
        network: &Network,
        endpoint: &Endpoint,
        netns: &Netns,
        gateways: Gateways,
    ) -> Result<u32, KernelError> {
        match network.driver {
            Driver::Bridge => told("attach", &endpoint.host_link, || {
                bridge::attach(self, network, endpoint, netns, gateways)
            }),
            Driver::Overlay { .. } => told("attach", &endpoint.host_link, || {
                let index = bridge::attach(self, network, endpoint, netns, gateways)?;
                overlay::shorten(self, network, endpoint)?;
                Ok(index)
            }),
        }
    }

    /// Puts the endpoint on its network and leaves its far end here under the name `far`, for Docker to take into a
    /// namespace of its own.
    pub(crate) fn offer(
        &mut self,
        network: &Network,
        endpoint: &Endpoint,
        far: &str,
    ) -> Result<(), KernelError> {
        match network.driver {
            Driver::Bridge | Driver::Overlay { .. } => {
                told("offer", &endpoint.host_link, || bridge::offer(self, network, endpoint, far))
            }
        }
    }

    /// The far end is where it belongs now: sees to it that nothing sent there is lost, and says what the device is
    /// called. None while it is not there.
    pub(crate) fn taken_over(
        &mut self,
        network: &Network,
        endpoint: &Endpoint,
        netns: &Netns,
    ) -> Result<Option<String>, KernelError> {
        match network.driver {
            Driver::Bridge | Driver::Overlay { .. } => bridge::taken_over(self, network, endpoint, netns),
        }
    }

    /// Puts the near end back on its network; its far end is left alone.
    pub(crate) fn replug(&mut self, network: &Network, endpoint: &Endpoint) -> Result<(), KernelError> {
        match network.driver {
            Driver::Bridge | Driver::Overlay { .. } => bridge::replug(self, network, endpoint),
        }
    }

    /// Cuts the endpoint off at once and leaves the link: Docker puts its far end back where it got it.
    pub(crate) fn unplug(&mut self, endpoint: &Endpoint) -> Result<(), KernelError> {
        told("unplug", &endpoint.host_link, || bridge::unplug(self, &endpoint.host_link))
    }

    /// Cuts the endpoint off at once and has it deleted in the background. Total and repeatable.
    pub(crate) fn detach(&mut self, endpoint: &Endpoint) -> Result<(), KernelError> {
        self.shortcuts.leave(&endpoint.host_link);
        told("detach", &endpoint.host_link, || {
            let device = shape::device(endpoint).map_or(Ok(()), |device| bridge::cut(self, &device));
            bridge::cut(self, &endpoint.host_link).and(device)
        })
    }

    /// Puts the endpoint's rates in force, if it has any. For what is there already: an attach does it itself.
    pub(crate) fn shape(&mut self, endpoint: &Endpoint) -> Result<(), KernelError> {
        shape::apply(&mut self.rtnl, endpoint)
    }

    /// Gives the sandbox other default routes.
    pub(crate) fn route(
        &mut self,
        netns: &Netns,
        routes: &[(&Endpoint, Gateways)],
    ) -> Result<(), KernelError> {
        let first = routes.first().map_or("none", |(endpoint, _)| &*endpoint.host_link);
        told("route", first, || bridge::route(netns, routes))
    }

    /// Whether the network's ports reach one another, or the gateway only. A port that is gone is no error.
    pub(crate) fn keep_apart(
        &mut self,
        network: &Network,
        ports: &[Arc<str>],
        apart: bool,
    ) -> Result<(), KernelError> {
        match network.driver {
            Driver::Bridge | Driver::Overlay { .. } => {
                told("keep apart", &network.bridge, || bridge::keep_apart(&mut self.rtnl, ports, apart))
            }
        }
    }

    /// Looks at the ways out of the host, and gives every link of ours the size that follows from them. Wrong sizes are
    /// slow, not broken: one that cannot be set is told.
    pub(crate) fn follow_ways_out(&mut self, model: &Model) -> Result<WaysOut, KernelError> {
        let links = self.rtnl.links()?;
        self.out = WaysOut::of(&links, &self.rtnl.routes()?);
        let sizes: HashMap<&str, Option<u32>> = links.iter().map(|link| (&*link.name, link.gso)).collect();
        for network in model.networks.values() {
            let wanted = offload::size(network, &self.out);
            for sandbox in model.sandboxes.by(&SandboxKey::On(Arc::clone(&network.id))) {
                for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.network == network.id) {
                    let size = sizes.get(&*endpoint.host_link).copied().flatten();
                    if size.is_some_and(|size| size != wanted)
                        && let Err(error) = self.resize(network, sandbox, endpoint, wanted)
                    {
                        tracing::warn!(sandbox = %sandbox.name, error = %Chain(&error), "cannot resize its packets");
                    }
                }
            }
        }
        Ok(self.out.clone())
    }

    fn resize(
        &mut self,
        network: &Network,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        size: u32,
    ) -> Result<(), KernelError> {
        let netns = Netns::open(&sandbox.netns)?;
        if (netns.id().device, netns.id().inode) != sandbox.netns_identity {
            return Ok(());
        }
        told("resize", &endpoint.host_link, || bridge::resize(self, network, endpoint, &netns, size))
    }

    /// Links that carry our mark.
    pub(crate) fn ours(&mut self) -> Result<Vec<Link>, KernelError> {
        let mut links = self.rtnl.links()?;
        links.retain(|link| link.group == GROUP || link.group == DOOMED);
        Ok(links)
    }

    /// For who is about to end: nobody deletes afterwards what was left to the reaper.
    pub(crate) fn bury(&mut self) {
        reaper::delete_doomed(&mut self.rtnl);
    }

    /// Removes a link of ours that no record knows.
    pub(crate) fn remove_stray(&mut self, link: &Link) -> Result<(), KernelError> {
        told("remove a stray link", &link.name, || bridge::cut(self, &link.name))
    }
}

/// Does it, and has the log say what became of which device, for who looks closely.
fn told<T>(
    deed: &'static str,
    device: &str,
    operation: impl FnOnce() -> Result<T, KernelError>,
) -> Result<T, KernelError> {
    let began = Instant::now();
    let result = operation();
    let took = began.elapsed();
    match &result {
        Ok(_) => tracing::debug!(target: "netd::driver", deed, device, ?took, "kernel operation done"),
        Err(error) => {
            tracing::debug!(target: "netd::driver", deed, device, ?took, error = %Chain(error), "kernel operation failed");
        }
    }
    result
}
