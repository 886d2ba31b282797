//! What has to be taken back when an operation fails half-way, as data: each step that took something pushes its
//! entry, and a failure runs them in reverse. An undo that fails is logged and the rest goes on; what it left is found
//! by name at the next start.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use netd_sys::netns::Netns;

use super::{World, overlay};
use crate::dataplane::SocketKey;
use crate::error::{Chain, Result};
use crate::ipam::Holder;
use crate::model::{Endpoint, Id, Network, Publish};
use crate::ports::Owner;

#[derive(Default)]
pub(super) struct Undo(Vec<Step>);

pub(super) enum Step {
    Lease {
        network: Arc<Network>,
        address: IpAddr,
        holder: Holder,
    },
    Port {
        sandbox: Id,
        publish: Publish,
    },
    /// A port that was given up is held again.
    Reclaim {
        owner: Owner,
        publish: Publish,
    },
    Vips {
        network: Network,
        vips: Vec<IpAddr>,
    },
    Directory(PathBuf),
    Namespace(PathBuf),
    Link(Endpoint),
    Bridge(Network),
    /// Sockets that only the control plane holds so far.
    Sockets(SocketKey),
}

impl Undo {
    pub(super) fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    /// Passes a success through; runs the steps backwards for a failure.
    pub(super) fn settle<T>(self, world: &mut World, result: Result<T>) -> Result<T> {
        if result.is_err() {
            for step in self.0.into_iter().rev() {
                step.run(world);
            }
            world.pursue();
        }
        result
    }
}

impl Step {
    fn run(self, world: &mut World) {
        match self {
            Self::Lease { network, address, holder } => world.books.unclaim(&network, address, &holder),
            Self::Port { sandbox, publish } => world.ports.release(&sandbox, &publish),
            Self::Reclaim { owner, publish } => {
                if let Err(clash) = world.ports.claim(&owner, &publish) {
                    tracing::warn!(%clash, "cannot hold a port again");
                }
            }
            Self::Vips { network, vips } => note(world.kernel.remove_vips(&network, &vips), &network.bridge),
            Self::Directory(path) => note(std::fs::remove_dir_all(&path), path.display()),
            Self::Namespace(path) => note(Netns::remove_at(&path), path.display()),
            Self::Link(endpoint) => {
                note(world.kernel.detach(&endpoint), &endpoint.host_link);
                world.reconcile.disown(&endpoint, world.books.model());
                note(overlay::absent_if_unused(world, &endpoint.network), &endpoint.network);
            }
            Self::Bridge(network) => note(world.kernel.remove_network(&network), &network.bridge),
            Self::Sockets(key) => world.reconcile.forget_sockets(&key),
        }
    }
}

fn note<E: std::error::Error>(result: std::result::Result<(), E>, object: impl Display) {
    if let Err(error) = result {
        tracing::warn!(%object, error = %Chain(&error), "cannot undo a step of a failed operation");
    }
}
