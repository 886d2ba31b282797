//! The IPAM driver: subnets and addresses handed to Docker before it says what they are for. A network of netd's that
//! stands on a pool knows who has which address; for other drivers' networks the pool itself is all there is to know.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use netd_api::ApiError;

use super::{OWNER, is_abandoned};
use crate::error::Result;
use crate::ipam::{self, Family, SubnetRequest};
use crate::manager::{World, wire};
use crate::model::{AddressPool, Id, Model, Network, PoolAddress, Purpose};
use crate::store::{Txn, encode, key_of};

/// A subnet as Docker asks for it; without one, any of the family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolRequest {
    pub subnet: Option<IpNetwork>,
    pub range: Option<IpNetwork>,
    pub v6: bool,
}

/// An address as Docker asks for it; without one, the next free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressRequest {
    pub pool: Id,
    pub address: Option<IpAddr>,
    pub purpose: Purpose,
}

/// Asking again for a subnet that no network stands on yet gives the same pool: Docker may not have heard the answer.
pub(crate) fn request_pool(world: &mut World, request: &PoolRequest) -> Result<Arc<AddressPool>> {
    drop_unused(world)?;
    if let Some(subnet) = request.subnet
        && let Some(pool) = world.model().pools.get(subnet.to_string().as_str())
        && pool.range == request.range
        && standing(world.model(), pool).is_none()
    {
        return Ok(Arc::clone(pool));
    }
    let family = match request.subnet {
        Some(subnet) => Family::of(subnet.ip()),
        None if request.v6 => Family::V6,
        None => Family::V4,
    };
    let asked = request.subnet.map(|subnet| SubnetRequest {
        subnet,
        gateway: None,
        range: request.range,
        auxiliary: Default::default(),
    });
    let host = wire::host_space(world, "")?;
    let networks = world.model().networks.values().map(|network| &**network);
    let subnet = ipam::plan_one(asked.as_ref(), family, &world.pools, networks, &host)?;
    let pool = AddressPool::new(subnet, request.range, SystemTime::now());
    world.commit(&Txn::default().put(key_of::<AddressPool>(&pool.id), encode(&pool)?))?;
    Ok(Arc::new(pool))
}

/// Every network has a gateway out of its pool, so one without any was abandoned before that.
fn drop_unused(world: &mut World) -> Result<()> {
    let model = world.model();
    let unused = |pool: &&Arc<AddressPool>| {
        is_abandoned(pool.since)
            && !model.pool_addresses.contains_key(&pool.id)
            && standing(model, pool).is_none()
    };
    let subnets: Vec<IpNetwork> = model.pools.values().filter(unused).map(|pool| pool.subnet).collect();
    forget(world, &subnets)
}

/// The pool of a network that stands goes with the network: Docker releases the pool first, and of two creations that
/// raced for one subnet, the one that failed must not take it from the other.
pub(crate) fn release_pool(world: &mut World, id: &str) -> Result<()> {
    match world.model().pools.get(id).cloned() {
        Some(pool) if standing(world.model(), &pool).is_none() => forget(world, &[pool.subnet]),
        _ => Ok(()),
    }
}

pub(crate) fn request_address(world: &mut World, request: &AddressRequest) -> Result<IpNetwork> {
    let Some(pool) = world.model().pools.get(&request.pool).cloned() else {
        let detail = format!("netd has no address pool {}", request.pool);
        let remedy = "its state was removed: `docker network rm` the network and create it anew";
        return Err(ApiError::not_found(detail).at("PoolID").remedy(remedy).into());
    };
    let mut txn = Txn::default();
    let address = match request.address {
        Some(address) => asked_for(world, &pool, address, request.purpose)?,
        None => match gateway(world.model(), &pool, request.purpose) {
            Some(address) => address,
            None => next(world, &pool, &mut txn)?,
        },
    };
    let record = pool.address(address, request.purpose, SystemTime::now());
    world.commit(&txn.put(key_of::<PoolAddress>(&record.id), encode(&record)?))?;
    world.turns.insert(Id::clone(&pool.id), address);
    Ok(IpNetwork::new(address, pool.subnet.prefix()).unwrap_or_else(|_| IpNetwork::from(address)))
}

/// What an endpoint or the network itself still has, stays: Docker deletes those first.
pub(crate) fn release_address(world: &mut World, pool: &str, address: IpAddr) -> Result<()> {
    let model = world.model();
    let Some(record) = model.pool_addresses.get(pool).and_then(|given| given.get(&address)) else {
        return Ok(());
    };
    if model.pools.get(pool).is_some_and(|pool| network_holder(world, pool, address).is_some()) {
        return Ok(());
    }
    let key = key_of::<PoolAddress>(&record.id);
    world.commit(&Txn::default().delete(key)).map(|_| ())
}

/// Pools with all their addresses.
pub(super) fn forget(world: &mut World, subnets: &[IpNetwork]) -> Result<()> {
    let mut txn = Txn::default();
    for id in subnets.iter().map(|subnet| Id::from(subnet.to_string())) {
        let addresses = world.model().pool_addresses.get(&id).into_iter().flatten();
        for (_, record) in addresses {
            txn = txn.delete(key_of::<PoolAddress>(&record.id));
        }
        if world.model().pools.contains_key(&id) {
            txn = txn.delete(key_of::<AddressPool>(&id));
        }
        world.turns.remove(&id);
    }
    if txn.writes().next().is_none() {
        return Ok(());
    }
    world.commit(&txn).map(|_| ())
}

/// The pools of a network that was just made: one of them may have been released by a creation that raced for it.
pub(super) fn ensure(world: &mut World, subnets: &[IpNetwork]) -> Result<()> {
    for &subnet in subnets {
        let pool = AddressPool::new(subnet, None, SystemTime::now());
        if !world.model().pools.contains_key(&pool.id) {
            world.commit(&Txn::default().put(key_of::<AddressPool>(&pool.id), encode(&pool)?))?;
        }
    }
    Ok(())
}

/// An address that the user chose. Where a network of ours stands, one that nobody has come for is free.
fn asked_for(world: &World, pool: &AddressPool, address: IpAddr, purpose: Purpose) -> Result<IpAddr> {
    ipam::check_address(address, pool.subnet).map_err(ipam::IpamError::from)?;
    let holder = match standing(world.model(), pool) {
        Some(_) => network_holder(world, pool, address),
        None => given(world.model(), pool, address)
            .filter(|record| record.purpose != purpose || purpose == Purpose::Host)
            .map(|_| "another endpoint of Docker's".to_owned()),
    };
    match holder {
        None => Ok(address),
        Some(holder) => {
            let detail = format!("address {address} of {} is held by {holder}", pool.subnet);
            Err(ApiError::conflict(detail).at("Address").remedy("choose another").into())
        }
    }
}

/// The gateway that was given out already: the call is repeated.
fn gateway(model: &Model, pool: &AddressPool, purpose: Purpose) -> Option<IpAddr> {
    if purpose != Purpose::Gateway {
        return None;
    }
    let given = model.pool_addresses.get(&pool.id)?;
    given.values().find(|record| record.purpose == Purpose::Gateway).map(|record| record.address)
}

/// The next free address. When none is left, those go that were given out and that no endpoint has taken up.
fn next(world: &World, pool: &AddressPool, txn: &mut Txn) -> Result<IpAddr> {
    let part = pool.range.unwrap_or(pool.subnet);
    let turn = world.turns.get(&pool.id).copied().or_else(|| youngest(world.model(), pool));
    let is_held = |address| network_holder(world, pool, address).is_some();
    let is_taken = |address| given(world.model(), pool, address).is_some() || is_held(address);
    if let Some(free) = ipam::next_free(pool.subnet, part, turn, is_taken) {
        return Ok(free);
    }
    let stands = standing(world.model(), pool).is_some();
    let is_left = |record: &PoolAddress| stands && is_abandoned(record.since) && !is_held(record.address);
    let left: Vec<&Arc<PoolAddress>> = world
        .model()
        .pool_addresses
        .get(&pool.id)
        .into_iter()
        .flat_map(|given| given.values())
        .filter(|record| is_left(record))
        .collect();
    for record in &left {
        *txn = std::mem::take(txn).delete(key_of::<PoolAddress>(&record.id));
    }
    let is_taken = |address| is_taken(address) && !left.iter().any(|record| record.address == address);
    ipam::next_free(pool.subnet, part, turn, is_taken).ok_or_else(|| {
        let held = world.model().pool_addresses.get(&pool.id).map_or(0, std::collections::BTreeMap::len);
        let detail = format!("no address is left in {part}: {held} are given out");
        let remedy = "remove containers, or make a network with a larger subnet";
        ApiError::exhausted(detail).remedy(remedy).into()
    })
}

fn youngest(model: &Model, pool: &AddressPool) -> Option<IpAddr> {
    let given = model.pool_addresses.get(&pool.id)?.values();
    given.max_by_key(|record| record.since).map(|record| record.address)
}

fn given<'a>(model: &'a Model, pool: &AddressPool, address: IpAddr) -> Option<&'a Arc<PoolAddress>> {
    model.pool_addresses.get(&pool.id)?.get(&address)
}

/// The network of ours on the pool's subnet.
fn standing<'a>(model: &'a Model, pool: &AddressPool) -> Option<&'a Arc<Network>> {
    let is_on = |network: &&Arc<Network>| network.subnets.iter().any(|subnet| subnet.subnet == pool.subnet);
    model.networks.values().filter(|network| network.owner.as_deref() == Some(OWNER)).find(is_on)
}

/// Who has the address on the network that stands on the pool.
fn network_holder(world: &World, pool: &AddressPool, address: IpAddr) -> Option<String> {
    let network = standing(world.model(), pool)?;
    world.books.leases(&network.id)?.holder(address)
}
