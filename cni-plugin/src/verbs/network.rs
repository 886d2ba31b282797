//! The netd network of a configuration of this plugin: made by its first ADD, and made anew when the configuration has
//! changed and nobody is on it. CNI tells nobody that a configuration was deleted, so what such a network holds is
//! given up when another one needs it.

use netd_api::network::{self, CreateNetwork, ListParams, Network, NetworkParams};
use netd_api::{Code as Said, Filter, Nothing};

use super::add::ensure_network;
use crate::daemon::{Daemon, reference};
use crate::error::{Code, Failure, Result};
use crate::spec::{Config, hash};

/// On a network that this plugin has made: the configuration's name, and what it said of the network.
const LABEL: &str = "cni.network";
const FINGERPRINT: &str = "cni.configuration";
/// What a network is made from. What the runtime says of one container is not of the network.
const KEYS: [&str; 7] = ["subnet", "ipam", "ipv6", "mtu", "internal", "isGateway", "ipMasq"];

pub(super) fn ensure(daemon: &Daemon, config: &Config) -> Result<Network> {
    let fingerprint = fingerprint(config)?;
    if let Some(found) = daemon.network(&config.network)? {
        // Others may use it, and have nothing to say of its shape.
        let is_maker = found.labels.get(LABEL) == Some(&config.name);
        if !is_maker || found.labels.get(FINGERPRINT) == Some(&fingerprint) {
            return Ok(found);
        }
        give_up(daemon, &found)?;
    }
    let request = || -> Result<CreateNetwork> {
        let mut request = config.create_network()?;
        request.labels.insert(LABEL.into(), config.name.clone());
        request.labels.insert(FINGERPRINT.into(), fingerprint.clone());
        Ok(request)
    };
    match ensure_network(daemon, &config.network, request) {
        Err(failure) if failure.code == Code::Refused && prune(daemon)? > 0 => {
            ensure_network(daemon, &config.network, request)
        }
        done => done,
    }
}

fn fingerprint(config: &Config) -> Result<String> {
    let root = config.root();
    let mut parts = Vec::new();
    for key in KEYS {
        parts.push(root.member(key)?.map(|node| node.value().to_string()).unwrap_or_default());
    }
    Ok(hash(&parts.iter().map(String::as_str).collect::<Vec<_>>()))
}

fn give_up(daemon: &Daemon, network: &Network) -> Result<()> {
    let count = network.containers.len();
    if count > 0 {
        let message = format!("the network {} was made from another configuration", network.name);
        let details = format!("stop the {count} containers on it, and it is made anew, or undo the change");
        return Err(Failure::new(Code::InvalidConfig, message, details));
    }
    let params = NetworkParams { name: reference(&network.id)? };
    match daemon.call::<network::Remove>(&params, &Nothing {}) {
        Err(error) if error.api().is_none_or(|api| api.code != Said::NotFound) => {
            Err(Failure::of_daemon(format!("cannot remove the network {}", network.name), &error))
        }
        _ => Ok(()),
    }
}

/// Only what this plugin has made, and only if nobody is on it. How many.
fn prune(daemon: &Daemon) -> Result<usize> {
    let params = ListParams { filter: vec![Filter { key: "label".into(), value: LABEL.into() }] };
    let pruned = daemon.call::<network::Prune>(&params, &Nothing {});
    let pruned = pruned.map_err(|error| Failure::of_daemon("cannot remove unused networks", &error))?;
    Ok(pruned.networks_deleted.len())
}
