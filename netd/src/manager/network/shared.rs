//! Networks of the cluster: an overlay is a record that all nodes see, and devices on those that have endpoints on it
//! (`manager/overlay.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use netd_api::ApiError;
use netd_api::network::{CreateNetwork, OverlayOptions};

use super::super::{World, new_id, overlay, wire};
use super::{device, subnet_requests};
use crate::driver::PROBE_VNI;
use crate::error::Result;
use crate::ipam::plan;
use crate::model::{BigTcp, Driver, Id, Model, Network, NetworkKey, NetworkOptions};
use crate::store::{Record as _, Txn, encode, key_of};

/// The smallest network identifier that is given to a network that asks for none.
const FIRST_VNI: u32 = 4096;
/// 24 bits.
const LAST_VNI: u32 = (1 << 24) - 1;

/// Creations of all nodes come one after another, so what is found free here is free everywhere.
pub(super) fn create(world: &mut World, request: &CreateNetwork) -> Result<Arc<Network>> {
    world.books.as_member()?;
    let options = OverlayOptions::try_from(&request.options)?;
    let requests = subnet_requests(&request.ipam.config)?;
    let has_v6 = request.enable_ipv6 || requests.iter().any(|request| request.subnet.is_ipv6());
    let mtu = overlay::mtu(world, options.mtu, has_v6)?;
    let id: Id = new_id();
    let bridge = device(&id);
    let host = wire::host_space(world, &bridge)?;
    let World { books, pools, .. } = world;
    let made = books.create_shared("network", |books| {
        let model = books.model();
        if model.networks.by(&NetworkKey::Name(Arc::from(&*request.name))).next().is_some() {
            let detail = format!("network with name {} already exists", request.name);
            return Err(ApiError::conflict(detail).at("Name").remedy("choose another name").into());
        }
        let networks = model.networks.values().map(|network| &**network);
        let subnets = plan(&requests, request.enable_ipv6, pools, networks, &host)?;
        let vni = vni(model, options.vni)?;
        let mut given = request.options.clone();
        given.insert("vni".into(), vni.to_string());
        let network = Network {
            id: Arc::clone(&id),
            name: Arc::from(&*request.name),
            created: SystemTime::now(),
            driver: Driver::Overlay { vni },
            subnets,
            internal: request.internal,
            bridge: bridge.as_str().into(),
            adopted_bridge: None,
            options: NetworkOptions {
                mtu,
                icc: options.icc.unwrap_or(true),
                masquerade: options.masquerade.unwrap_or(true),
                isolate: options.isolate.unwrap_or(true),
                big_tcp: BigTcp::Off,
                given,
            },
            labels: request.labels.clone(),
            resolves: true,
            owner: None,
        };
        let key = key_of::<Network>(network.id());
        let txn = Txn::default().expect_absent(Arc::clone(&key)).put(key, encode(&network)?);
        Ok((txn, Arc::new(network)))
    });
    world.carry();
    made
}

fn vni(model: &Model, asked: Option<u32>) -> Result<u32> {
    let taken: BTreeSet<u32> = model
        .networks
        .values()
        .filter_map(|network| match network.driver {
            Driver::Overlay { vni } => Some(vni),
            Driver::Bridge => None,
        })
        .collect();
    let Some(asked) = asked else {
        let free = (FIRST_VNI..=LAST_VNI).find(|number| !taken.contains(number));
        return free.ok_or_else(|| ApiError::exhausted("every network identifier is taken").into());
    };
    if asked == PROBE_VNI {
        let detail =
            format!("the network identifier {asked} is the one by which nodes try their ways to each other");
        return Err(ApiError::conflict(detail)
            .at("Options.vni")
            .remedy("choose another, or leave it out")
            .into());
    }
    if !taken.contains(&asked) {
        return Ok(asked);
    }
    let has_it = |network: &&Arc<Network>| network.driver == Driver::Overlay { vni: asked };
    let holder = model.networks.values().find(has_it).map_or("another", |network| &*network.name);
    let detail = format!("the network identifier {asked} belongs to network {holder}");
    Err(ApiError::conflict(detail).at("Options.vni").remedy("choose another, or leave it out").into())
}

/// Refused while anybody is on it, on whatever node.
pub(super) fn remove(world: &mut World, network: &Arc<Network>) -> Result<()> {
    let removed = world.books.remove_shared_network(network);
    world.carry();
    removed
}
