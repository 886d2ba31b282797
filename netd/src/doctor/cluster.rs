//! The cluster's store, and what of it this node cannot make sense of.

use netd_api::system::Check;

use super::{failed, fine, some_of, warning};
use crate::manager::{ClusterView, World};
use crate::model::{Model, NetworkKey, Scope};

const NAME: &str = "cluster";

pub(super) fn examine(world: &World) -> Vec<Check> {
    let Some(view) = world.cluster_view() else { return Vec::new() };
    // Who reaches the wrong one is told so below.
    let mut checks = if view.is_foreign() { Vec::new() } else { vec![reach(&view)] };
    checks.extend(view.trouble.as_ref().map(|(what, remedy)| failed(NAME, what.clone(), remedy.clone())));
    checks.extend(view.owed.as_ref().map(|owed| {
        let detail =
            format!("this node's own records are not in the cluster's store as they should be: {owed}");
        warning(NAME, detail, "it is tried again every second; if it stays, the log says more")
    }));
    checks.extend(view.disputed.iter().map(|dispute| {
        let detail = format!("a sandbox here has an address that is another's: {dispute}");
        failed(NAME, detail, "remove one of the two sandboxes")
    }));
    checks.extend(view.refused.iter().map(|refused| {
        let detail = format!("{refused}; all else is served");
        warning(NAME, detail, "bring this node's netd to the version of the others")
    }));
    checks.extend(twice_named(world.model()));
    checks
}

fn reach(view: &ClusterView) -> Check {
    match &view.outage {
        None => {
            fine(NAME, format!("the store answers; {} of {} nodes are alive", view.alive.len(), view.members))
        }
        Some(cause) => failed(
            NAME,
            format!("the store is out of reach: {cause}; what is here goes on as it is"),
            "see that etcd runs and that this host reaches it (`--store`)",
        ),
    }
}

/// A name that is a network's of this node's own and of the cluster's: made while one could not know of the other.
fn twice_named(model: &Model) -> Option<Check> {
    let shared = model.networks.values().filter(|network| network.scope() == Scope::Shared);
    let hidden = |name: &std::sync::Arc<str>| {
        let mut named = model.networks.by(&NetworkKey::Name(std::sync::Arc::clone(name)));
        named.any(|network| network.scope() == Scope::Local)
    };
    let names: Vec<String> =
        shared.map(|network| &network.name).filter(|name| hidden(name)).map(ToString::to_string).collect();
    let detail =
        || format!("networks of the cluster that this node's own hide by their names: {}", some_of(&names));
    (!names.is_empty()).then(|| warning(NAME, detail(), "use their ids, or rename the local ones"))
}
