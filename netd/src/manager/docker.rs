//! What Docker asks of its network and IPAM plugin, done to the same records as everything else: its networks and
//! endpoints keep Docker's ids, so that a call that is repeated after either side died finds what the first one made.
//!
//! Docker repeats a call whose connection broke, and after a crash it takes apart what it still knows. What it does not
//! know any more is found here by its age, or by its namespace being gone.

mod endpoint;
mod network;
mod pool;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netd_api::ApiError;

use super::World;
use crate::error::Result;
use crate::model::{Id, Mode, Network, Sandbox};

pub(crate) use endpoint::{
    Joined, NewEndpoint, create as create_endpoint, delete as delete_endpoint, join, leave, program, revoke,
    settle,
};
pub(crate) use network::{NewNetwork, create as create_network, delete as delete_network};
pub(crate) use pool::{
    AddressRequest, PoolRequest, release_address, release_pool, request_address, request_pool,
};

pub(super) use endpoint::repair;

const OWNER: &str = "docker";

/// Docker's calls for one endpoint or network follow each other within seconds: what nobody has come for since was left
/// by a dockerd that died in between.
const ABANDONED: Duration = Duration::from_secs(60);

/// Refuses to change behind Docker's back what it made. While it cannot reach us, its networks may be removed.
pub(super) fn keep_off(world: &World, network: &Network, deed: &str) -> Result<()> {
    if network.owner.is_none() || (deed == "remove" && world.config.docker.is_none()) {
        return Ok(());
    }
    let id = super::short(&network.id);
    let detail = format!("network {} is Docker's", network.name);
    let remedy = match deed {
        "remove" => format!(
            "use `docker network rm {id}`; if Docker knows it no more, switch docker.plugin off in netd's \
             configuration first"
        ),
        _ => format!("use `docker network {deed} {id} CONTAINER`, or make a network of netd's"),
    };
    Err(ApiError::forbidden(detail).remedy(remedy).into())
}

fn is_abandoned(since: SystemTime) -> bool {
    since.elapsed().is_ok_and(|age| age > ABANDONED)
}

/// Docker's network of that id.
fn find_network(world: &World, id: &str) -> Result<Arc<Network>> {
    match world.model().networks.get(id) {
        Some(network) if network.owner.as_deref() == Some(OWNER) => Ok(Arc::clone(network)),
        _ => {
            let detail = format!("netd has no network {} of Docker's", super::short(id));
            let remedy = "its state was removed: `docker network rm` it and create it anew";
            Err(ApiError::not_found(detail).remedy(remedy).into())
        }
    }
}

/// The endpoint of that id, if it was made by Docker.
fn find_endpoint(world: &World, id: &str) -> Option<Arc<Sandbox>> {
    world.model().sandboxes.get(id).filter(|sandbox| sandbox.mode == Mode::Docker).cloned()
}

fn name_of(id: &Id) -> String {
    format!("docker-{}", super::short(id))
}
