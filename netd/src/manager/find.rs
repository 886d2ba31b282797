//! From what a request wrote (a name, an id, the beginning of an id) to the record that is meant.
//!
//! Docker's order: the full id first, then the full name, then a prefix of the id if only one record has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use netd_api::ApiError;

use crate::error::Result;
use crate::model::{Id, Model, Network, NetworkKey, Sandbox, SandboxKey, Scope, Service, ServiceKey};

pub(crate) fn network(model: &Model, wanted: &str) -> Result<Arc<Network>> {
    // What others made meanwhile does not change what a name means here.
    let named = model.networks.by(&NetworkKey::Name(wanted.into()));
    let named = named.min_by_key(|network| network.scope() == Scope::Shared);
    find("network", &model.networks, wanted, named)
}

pub(crate) fn sandbox(model: &Model, wanted: &str) -> Result<Arc<Sandbox>> {
    let named = model.sandboxes.by(&SandboxKey::Name(wanted.into())).next();
    find("sandbox", &model.sandboxes, wanted, named)
}

pub(crate) fn service(model: &Model, wanted: &str) -> Result<Arc<Service>> {
    let named = model.services.by(&ServiceKey::Name(wanted.into())).next();
    find("service", &model.services, wanted, named)
}

fn find<T>(
    kind: &str,
    records: &BTreeMap<Id, Arc<T>>,
    wanted: &str,
    named: Option<&Arc<T>>,
) -> Result<Arc<T>> {
    if let Some(found) = records.get(wanted).or(named) {
        return Ok(Arc::clone(found));
    }
    let mut prefixed = records
        .range::<str, _>((std::ops::Bound::Included(wanted), std::ops::Bound::Unbounded))
        .take_while(|(id, _)| id.starts_with(wanted))
        .map(|(_, record)| record);
    match (prefixed.next(), prefixed.next()) {
        (Some(found), None) => Ok(Arc::clone(found)),
        (None, _) => {
            let remedy = format!("`netd {kind} ls` shows what there is");
            Err(ApiError::not_found(format!("there is no {kind} {wanted:?}")).remedy(remedy).into())
        }
        (Some(_), Some(_)) => {
            let detail = format!("more than one {kind} has an id that begins with {wanted:?}");
            Err(ApiError::invalid(detail).remedy("give more of the id, or the name").into())
        }
    }
}
