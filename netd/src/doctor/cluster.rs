//! The cluster's store, and what of it this node cannot make sense of.

use std::net::IpAddr;

use netd_api::system::Check;

use super::{failed, fine, some_of, warning};
use crate::manager::{ClusterView, World};
use crate::model::{Model, NetworkKey, Scope};

const NAME: &str = "cluster";

/// `own`: the addresses of this host's devices.
pub(super) fn examine(world: &World, own: &[IpAddr]) -> Vec<Check> {
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
    checks.extend(places(world.model(), own));
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

/// Where other nodes look for this one, and whether it is there, alone.
fn places(model: &Model, own: &[IpAddr]) -> Vec<Check> {
    let Some(here) = model.nodes.get(&model.here) else { return Vec::new() };
    let mut ends = vec![here.mesh.ip(), here.vtep];
    ends.dedup();
    let missing = ends.into_iter().filter(|end| !own.contains(end)).map(|end| {
        let detail = format!("no device of this host has {end}, the address by which other nodes know it");
        failed(NAME, detail, "give a device that address, or start netd with another --advertise-addr")
    });
    let others = model.nodes.values().filter(|node| node.name != model.here);
    let same = others.filter(|node| {
        node.mesh == here.mesh || (node.vtep, node.vxlan_port) == (here.vtep, here.vxlan_port)
    });
    let same = same.map(|node| {
        let detail =
            format!("node {} says that it has the address {} of this one", node.name, here.mesh.ip());
        failed(NAME, detail, "give each node an --advertise-addr of its own")
    });
    missing.chain(same).collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Node;
    use crate::testing;

    fn node(name: &str, address: [u8; 4]) -> Arc<Node> {
        Arc::new(testing::node(name, address))
    }

    #[test]
    fn a_node_is_where_others_look_for_it_and_alone_there() {
        let mut model = Model { here: "a".into(), ..Model::default() };
        let (one, two) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let told = |model: &Model, own: &[[u8; 4]]| -> Vec<String> {
            let own: Vec<IpAddr> = own.iter().map(|own| IpAddr::from(*own)).collect();
            places(model, &own).into_iter().map(|check| check.detail).collect()
        };
        assert!(told(&model, &[]).is_empty(), "it is nowhere yet");
        model.nodes.insert("a".into(), node("a", one));
        model.nodes.insert("b".into(), node("b", two));
        assert!(told(&model, &[one]).is_empty());
        let missing = told(&model, &[two]);
        assert!(
            missing.len() == 1 && missing[0].contains("no device of this host has 192.0.2.1"),
            "{missing:?}"
        );
        model.nodes.insert("c".into(), node("c", one));
        let twice = told(&model, &[one]);
        assert!(twice.len() == 1 && twice[0].contains("node c"), "{twice:?}");
    }
}
