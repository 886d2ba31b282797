//! The other nodes, as the data plane sends connections to them and takes connections from them. Pure.

use netd_proxy::table::{Mesh, MeshNode, Token};

use super::client_address::subnets;
use crate::model::Model;

/// Connections and flows that other nodes may have here; the process's own bound is below the sum of all such bounds.
const LIMIT: u32 = 16_384;
/// One node that has gone mad leaves room for the others.
const LIMIT_PER_NODE: u32 = 8_192;

/// None outside of a cluster. `before` is what was so: a node that cannot renew its record stays where it is.
pub(crate) fn mesh(model: &Model, before: Option<&Mesh>) -> Option<Mesh> {
    let token = token(model.mesh_secret.as_deref()?)?;
    let here = model.nodes.get(&model.here).map(|node| node.mesh);
    // A backend here may be on any of them, and would answer a client there straight. And every node may have networks of
    // its own with the same addresses: a client of that one is none of ours.
    let networks = model.networks.values();
    Some(Mesh {
        address: here.or_else(|| before.map(|before| before.address))?,
        token,
        nodes: model
            .heard()
            .map(|(name, place)| MeshNode {
                name: name.clone(),
                mesh: place.mesh,
                addresses: place.addresses,
            })
            .collect(),
        except: subnets(networks.map(|network| &network.id), model),
        limit: LIMIT,
        limit_per_node: LIMIT_PER_NODE,
    })
}

/// From 64 hexadecimal digits.
fn token(secret: &str) -> Option<Token> {
    let mut token = [0; 32];
    if secret.len() != 2 * token.len() || !secret.is_ascii() {
        return None;
    }
    for (at, byte) in token.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Token(token))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{network, node};

    #[test]
    fn the_others_that_live_and_the_networks_that_are_ours_alone() {
        let mut model = Model { here: "a".into(), ..Model::default() };
        assert_eq!(mesh(&model, None), None);
        model.mesh_secret = Some("0a".repeat(32).into());
        assert_eq!(mesh(&model, None), None, "this node is nowhere yet");
        for (name, address) in [("a", [192, 0, 2, 1]), ("b", [192, 0, 2, 2])] {
            model.nodes.insert(name.into(), Arc::new(node(name, address)));
        }
        let app = network("app", &[("10.1.0.0/16", "10.1.0.1")]);
        model.networks.insert(app.id.clone(), Arc::new(app));
        let made = mesh(&model, None).expect("a mesh");
        assert_eq!((made.token.clone(), made.nodes.len()), (Token([10; 32]), 1));
        assert_eq!((&*made.nodes[0].name, made.except.len()), ("b", 1));
        model.nodes.remove("a");
        assert_eq!(mesh(&model, Some(&made)), Some(made), "until its record is back");
        model.mesh_secret = Some("short".into());
        assert_eq!(mesh(&model, None), None);
    }
}
