//! The short way past the bridge of an overlay network (`netd_sys::bpf::overlay`), where the kernel has it: who goes it,
//! and who is reached by it. All of this is on top: without it, and for whatever it does not take, there is the bridge.
//!
//! Left out are sandboxes with rates, which are kept at the port that the short way passes by, and networks whose
//! sandboxes are kept apart.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use netd_sys::KernelError;
use netd_sys::bpf::overlay::{Port, Shortcut, Station};

use crate::error::Chain;
use crate::model::{Endpoint, Id, Network};
use crate::tables::Mac;

/// Held as long as it is in force. What the programs know goes with the last of this.
#[derive(Debug, Default)]
pub(in crate::driver) struct Shortcuts {
    programs: Programs,
    tunnels: BTreeMap<Id, Tunnel>,
    ports: BTreeMap<Arc<str>, Joined>,
    /// Who is behind one of the ports.
    here: BTreeSet<(Id, Mac)>,
}

#[derive(Debug, Default)]
enum Programs {
    #[default]
    Untried,
    Absent,
    There(Shortcut),
}

#[derive(Debug)]
struct Tunnel {
    index: u32,
    _attached: OwnedFd,
}

#[derive(Debug)]
struct Joined {
    index: u32,
    network: Id,
    mac: Mac,
    _attached: OwnedFd,
}

impl Shortcuts {
    /// The network's tunnel is there, perhaps as another device than before.
    pub(super) fn tunnel(&mut self, network: &Network, index: u32) {
        if self.tunnels.get(&network.id).is_some_and(|tunnel| tunnel.index == index) {
            return;
        }
        self.forget_tunnel(&network.id);
        if let Programs::Untried = self.programs {
            self.programs = match Shortcut::open() {
                Ok(programs) => Programs::There(programs),
                Err(error) => {
                    tracing::info!(error = %Chain(&error), "overlay traffic goes by bridges all the way");
                    Programs::Absent
                }
            };
        }
        let Programs::There(programs) = &self.programs else { return };
        match programs.join_tunnel(index) {
            Ok(attached) => {
                let tunnel = Tunnel { index, _attached: attached };
                self.tunnels.insert(Arc::clone(&network.id), tunnel);
            }
            Err(error) => {
                tracing::info!(error = %Chain(&error), "overlay traffic goes by bridges all the way");
                self.programs = Programs::Absent;
            }
        }
    }

    pub(super) fn forget_tunnel(&mut self, network: &Id) {
        let Some(tunnel) = self.tunnels.remove(network) else { return };
        self.ports.retain(|_, port| port.network != *network);
        self.here.retain(|(at, _)| at != network);
        if let Programs::There(programs) = &self.programs {
            let known = programs.stations(tunnel.index).unwrap_or_default();
            note(known.into_iter().try_for_each(|mac| programs.remove(tunnel.index, mac)));
        }
    }

    /// The endpoint's port is up, its other end in a namespace of its own.
    pub(in crate::driver) fn join(&mut self, network: &Network, endpoint: &Endpoint, index: u32) {
        self.leave(&endpoint.host_link);
        let (Programs::There(programs), Some(tunnel)) = (&self.programs, self.tunnels.get(&network.id))
        else {
            return;
        };
        let bandwidth = &endpoint.bandwidth;
        if !network.options.icc || bandwidth.ingress.is_some() || bandwidth.egress.is_some() {
            return;
        }
        let port = Port {
            network: tunnel.index,
            mac: endpoint.mac,
            v4: endpoint.v4.map(|(address, _)| address),
            v6: endpoint.v6.map(|(address, _)| address),
        };
        let joined = programs.join_port(index, &port).and_then(|attached| {
            programs.put(tunnel.index, endpoint.mac, Station::Here(index))?;
            Ok(attached)
        });
        match joined {
            Ok(attached) => {
                let network = Arc::clone(&network.id);
                self.here.insert((Arc::clone(&network), endpoint.mac));
                let joined = Joined { index, network, mac: endpoint.mac, _attached: attached };
                self.ports.insert(Arc::clone(&endpoint.host_link), joined);
            }
            Err(error) => note(Err(error)),
        }
    }

    pub(in crate::driver) fn leave(&mut self, port: &str) {
        let Some(joined) = self.ports.remove(port) else { return };
        self.here.remove(&(Arc::clone(&joined.network), joined.mac));
        let (Programs::There(programs), Some(tunnel)) = (&self.programs, self.tunnels.get(&joined.network))
        else {
            return;
        };
        let port = programs.remove_port(joined.index);
        note(programs.remove(tunnel.index, joined.mac).and(port));
    }

    /// An endpoint of another node has come or gone. One that is here has precedence.
    pub(super) fn far(&self, network: &Id, mac: Mac, is_there: bool) {
        let (Programs::There(programs), Some(tunnel)) = (&self.programs, self.tunnels.get(network)) else {
            return;
        };
        if self.here.contains(&(Arc::clone(network), mac)) {
            return;
        }
        note(if is_there {
            programs.put(tunnel.index, mac, Station::There)
        } else {
            programs.remove(tunnel.index, mac)
        });
    }

    /// These endpoints of other nodes there are, and no others.
    pub(super) fn far_only(&self, network: &Id, macs: &BTreeSet<Mac>) {
        let (Programs::There(programs), Some(tunnel)) = (&self.programs, self.tunnels.get(network)) else {
            return;
        };
        let stale = programs.stations(tunnel.index).unwrap_or_default();
        stale.into_iter().filter(|mac| !macs.contains(mac)).for_each(|mac| self.far(network, mac, false));
        macs.iter().for_each(|mac| self.far(network, *mac, true));
    }
}

fn note(result: Result<(), KernelError>) {
    if let Err(error) = result {
        tracing::debug!(error = %Chain(&error), "some overlay traffic goes by the bridge");
    }
}
