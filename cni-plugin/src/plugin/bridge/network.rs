//! The netd network of a configuration: made when it is not there, made anew when the configuration has changed, and
//! removed when nobody is on it.

use netd_api::network::{self, ListParams, Network, NetworkParams};
use netd_api::{Filter, Nothing};
use netd_sys::netlink::Rtnl;

use super::wanted::{FINGERPRINT, LABEL, Wanted};
use crate::daemon::{Daemon, reference};
use crate::error::{Code, Failure, Result};
use crate::spec::Config;
use crate::verbs::add::ensure_network;
use crate::verbs::is_missing_here;

pub(super) fn ensure(daemon: &Daemon, config: &Config, wanted: &Wanted) -> Result<Network> {
    if let Some(found) = daemon.network(&config.network)? {
        let Some(made_from) = found.labels.get(FINGERPRINT) else { return Ok(found) };
        let is_same = made_from == wanted.fingerprint();
        // podman deletes the device of a network that it removes.
        let is_whole = found.device.as_ref().is_some_and(|device| !is_missing_here(device));
        if is_same && (is_whole || !found.containers.is_empty()) {
            return Ok(found);
        }
        if !found.containers.is_empty() {
            let message = format!("the network {} was made from another configuration", found.name);
            let details =
                format!("stop the {} containers on it, and it is made anew", found.containers.len());
            return Err(Failure::new(Code::InvalidConfig, message, details));
        }
        remove(daemon, &found)?;
    }
    refuse_what_others_use(daemon, &wanted.bridge)?;
    let make = || ensure_network(daemon, &config.network, || Ok(wanted.request.clone()));
    match make() {
        // Subnet or device may belong to a network that lost its last container without a DEL.
        Err(failure) if failure.code == Code::Refused && prune(daemon, LABEL)? > 0 => make(),
        done => done,
    }
}

fn remove(daemon: &Daemon, network: &Network) -> Result<()> {
    let params = NetworkParams { name: reference(&network.id)? };
    match daemon.call::<network::Remove>(&params, &Nothing {}) {
        Err(error) if error.api().is_none_or(|api| api.code != netd_api::Code::NotFound) => {
            Err(Failure::of_daemon(format!("cannot remove the network {}", network.name), &error))
        }
        _ => Ok(()),
    }
}

/// A bridge that is there and idle is adopted, and left as it was when the network goes. One that has ports carries
/// somebody's containers, whose addresses netd does not know: it would hand them out again.
fn refuse_what_others_use(daemon: &Daemon, bridge: &str) -> Result<()> {
    let mut rtnl = Rtnl::open().map_err(|error| Failure::of_kernel(&error))?;
    let Some(found) = rtnl.link(bridge).map_err(|error| Failure::of_kernel(&error))? else { return Ok(()) };
    let links = rtnl.links().map_err(|error| Failure::of_kernel(&error))?;
    let ports: Vec<String> =
        links.into_iter().filter(|link| link.master == Some(found.index)).map(|link| link.name).collect();
    let is_ours = |network: &Network| network.device.as_deref() == Some(bridge);
    // The daemon's own refusal names the network.
    if ports.is_empty() || list(daemon)?.iter().any(is_ours) {
        return Ok(());
    }
    let message = format!("the bridge {bridge} is not netd's, and in use by {}", ports.join(", "));
    let details = "stop the containers on it, or give the network another bridge";
    Err(Failure::new(Code::Refused, message, details))
}

fn list(daemon: &Daemon) -> Result<Vec<Network>> {
    let all = daemon.call::<network::List>(&ListParams::default(), &Nothing {});
    all.map_err(|error| Failure::of_daemon("cannot list the networks", &error))
}

/// Only what carries the label, and only if nobody is on it. How many.
fn prune(daemon: &Daemon, label: &str) -> Result<usize> {
    let params = ListParams { filter: vec![Filter { key: "label".into(), value: label.into() }] };
    let pruned = daemon.call::<network::Prune>(&params, &Nothing {});
    let pruned = pruned.map_err(|error| Failure::of_daemon("cannot remove unused networks", &error))?;
    Ok(pruned.networks_deleted.len())
}

/// After a DEL, which has succeeded by now. What stays is made anew or pruned by a later call.
pub(super) fn remove_unused(config: &Config) {
    let label = format!("{LABEL}={}", config.name);
    if let Ok(daemon) = Daemon::at(&config.socket)
        && let Err(failure) = prune(&daemon, &label)
        && failure.code != Code::TryAgain
    {
        eprintln!("netd-cni: {}: {}", failure.message, failure.details);
    }
}
