//! `firewall`: says which networks may reach this one, by the options of netd's network. The rules are netd's own and are
//! there already: nothing here belongs to one container, so DEL has nothing to do.

use std::collections::BTreeMap;

use netd_api::network::{ChangeNetwork, NetworkParams, Update};
use serde_json::Value;

use super::chain::{attached, before, passed_on, refuse};
use crate::daemon::{Daemon, reference};
use crate::error::{Code, Failure, Result};
use crate::spec::{Config, Environment, Verb};

const NAME: &str = "firewall";

pub(super) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    match verb {
        Verb::Add => add(environment, config).map(Some),
        Verb::Check => check(environment, config).map(|()| None),
        Verb::Del | Verb::Gc | Verb::Status => Ok(None),
    }
}

/// `ingressPolicy` as options of the network.
pub(super) fn options(config: &Config) -> Result<BTreeMap<String, String>> {
    let root = config.root();
    refuse(
        &root,
        "iptablesAdminChainName",
        "netd's rules are in nftables: put your own in a table of your own",
    )?;
    if let Some(backend) = root.member("backend")?
        && backend.text()? == "firewalld"
    {
        return Err(
            backend.unsupported("netd's rules are in nftables; trust the bridges in firewalld yourself")
        );
    }
    let policy = root.member("ingressPolicy")?;
    let pairs: &[(&str, &str)] = match policy.as_ref().map_or(Ok(""), |policy| policy.text())? {
        "" | "open" => &[("isolate", "false")],
        "same-bridge" => &[("isolate", "true")],
        "isolated" => &[("isolate", "true"), ("icc", "false")],
        _ => {
            let known = "use open, same-bridge or isolated";
            return Err(policy.map_or_else(
                || Failure::new(Code::InvalidConfig, "ingressPolicy is not valid", known),
                |policy| policy.invalid(&known),
            ));
        }
    };
    Ok(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn add(environment: &Environment, config: &Config) -> Result<Value> {
    let before = before(config, NAME)?;
    let options = options(config)?;
    let daemon = Daemon::at(&config.socket)?;
    attached(&daemon, config, environment, NAME)?;
    let params = NetworkParams { name: reference(&config.network)? };
    daemon.call::<Update>(&params, &ChangeNetwork { options }).map_err(|error| {
        Failure::of_daemon(format!("cannot set the isolation of the network {}", config.network), &error)
    })?;
    Ok(passed_on(before, config))
}

fn check(environment: &Environment, config: &Config) -> Result<()> {
    before(config, NAME)?;
    let wanted = options(config)?;
    let daemon = Daemon::at(&config.socket)?;
    attached(&daemon, config, environment, NAME)?;
    let network = daemon.network(&config.network)?.map(|network| network.options).unwrap_or_default();
    match wanted.iter().find(|(key, value)| network.get(*key) != Some(value)) {
        None => Ok(()),
        Some((key, value)) => {
            let message = format!("the network {} does not have {key}={value}", config.network);
            Err(Failure::new(Code::Wrong, message, "somebody has changed it since"))
        }
    }
}
