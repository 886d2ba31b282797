//! Docker's networks: made as netd's own are, under Docker's id.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use netd_api::ApiError;

use super::{OWNER, find_network, name_of, pool};
use crate::error::Result;
use crate::ipam::SubnetRequest;
use crate::manager::network::Draft;
use crate::manager::{World, network, sandbox};
use crate::model::{Id, SandboxKey};

/// A network as Docker asks for it: the addresses are decided already, by its own allocation or by ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewNetwork {
    pub id: Id,
    pub subnets: Vec<SubnetRequest>,
    /// Of these subnets, the ones that our own IPAM driver gave out.
    pub promised: Vec<IpNetwork>,
    pub internal: bool,
    pub options: BTreeMap<String, String>,
}

pub(crate) fn create(world: &mut World, new: &NewNetwork) -> Result<()> {
    if find_network(world, &new.id).is_ok() {
        return Ok(());
    }
    let draft = Draft {
        name: &name_of(&new.id),
        id: Id::clone(&new.id),
        subnets: new.subnets.clone(),
        promised: new.promised.clone(),
        ipv6: false,
        internal: new.internal,
        options: &new.options,
        labels: BTreeMap::new(),
        owner: Some(OWNER.into()),
    };
    network::make(world, draft)?;
    pool::ensure(world, &new.promised)
}

/// Everything on it goes along: Docker asks only when it knows of nothing any more. Gone is gone.
pub(crate) fn delete(world: &mut World, id: &Id) -> Result<()> {
    let Ok(found) = find_network(world, id) else { return Ok(()) };
    let on_it = SandboxKey::On(Id::clone(id));
    let mut errors = Vec::new();
    for endpoint in world.model().sandboxes.by(&on_it).cloned().collect::<Vec<_>>() {
        errors.extend(sandbox::take_down(world, &endpoint)?);
    }
    // Before the network: cut off here, a repeated call still finds the network and comes by again.
    let subnets: Vec<IpNetwork> = found.subnets.iter().map(|subnet| subnet.subnet).collect();
    pool::forget(world, &subnets)?;
    network::delete(world, &Arc::clone(&found))?;
    if errors.is_empty() {
        return Ok(());
    }
    let detail = format!("network {} is removed, but something is left: {}", found.name, errors.join("; "));
    Err(ApiError::kernel(detail).remedy("the next start of netd tries again").into())
}
