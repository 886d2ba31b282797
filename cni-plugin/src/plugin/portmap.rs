//! `portmap`: publishes ports of a container that netd's bridge has attached. They are sockets or are steered past those
//! that the runtime keeps on them, not rules, so what a rule would have to be told means nothing here: `snat`,
//! `masqAll`, `markMasqBit` and `backend` are accepted, because answers find their way and the container reaches its own
//! port in any case.

use netd_api::Code as Said;
use netd_api::sandbox::{self, PortMap, SandboxParams, UnpublishPort};
use netd_api::value::{PortRange, PortSpec, Protocol};
use serde_json::Value;

use super::chain::{attached, before, passed_on, refuse, told};
use crate::daemon::{Daemon, reference};
use crate::error::{Code, Failure, Result};
use crate::spec::{Config, Environment, Verb, Wishes, sandbox_name};
use crate::verbs::publish::{as_ranges, is_published, publish};

const NAME: &str = "portmap";

pub(super) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    match verb {
        Verb::Add => add(environment, config).map(Some),
        Verb::Del => {
            told(del(environment, config));
            Ok(None)
        }
        Verb::Check => check(environment, config).map(|()| None),
        Verb::Gc | Verb::Status => Ok(None),
    }
}

pub(super) fn ports(environment: &Environment, config: &Config) -> Result<Vec<PortSpec>> {
    let root = config.root();
    let no_rules =
        "netd's published ports are no rules that conditions could stand in; use the host's INPUT rules";
    refuse(&root, "conditionsV4", no_rules)?;
    refuse(&root, "conditionsV6", no_rules)?;
    refuse(&root, "externalSetMarkChain", "netd marks no packets")?;
    Ok(as_ranges(&Wishes::read(config, environment)?.ports))
}

fn add(environment: &Environment, config: &Config) -> Result<Value> {
    let before = before(config, NAME)?;
    let ports = ports(environment, config)?;
    if !ports.is_empty() {
        let daemon = Daemon::at(&config.socket)?;
        let sandbox = attached(&daemon, config, environment, NAME)?;
        publish(&daemon, &sandbox, &ports)?;
    }
    Ok(passed_on(before, config))
}

/// A container that stays on another network that leads out keeps its ports: they lead there then.
fn del(environment: &Environment, config: &Config) -> Result<()> {
    let daemon = Daemon::at(&config.socket)?;
    let Some(sandbox) = daemon.sandbox(&sandbox_name(&environment.container)?)? else { return Ok(()) };
    let settings = &sandbox.network_settings;
    let leads_out = |gateway: &str| !gateway.is_empty();
    let mut others = settings.networks.iter().filter(|(name, _)| **name != *config.network);
    if others.any(|(_, other)| leads_out(&other.gateway) || leads_out(&other.ipv6_gateway)) {
        return Ok(());
    }
    let asked = ports(environment, config).unwrap_or_default();
    let ports = if asked.is_empty() { as_ranges(&listed(&settings.ports)) } else { asked };
    let params = SandboxParams { name: reference(&sandbox.id)? };
    for port in ports {
        match daemon.call::<sandbox::Unpublish>(&params, &UnpublishPort { port }) {
            Err(error) if error.api().is_none_or(|api| api.code != Said::NotFound) => {
                told(Err(Failure::of_daemon(format!("cannot close {port}"), &error)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the sandbox publishes, as a request would have it.
fn listed(ports: &PortMap) -> Vec<PortSpec> {
    let mut specs = Vec::new();
    for (key, bindings) in ports {
        let Some((port, protocol)) = key.split_once('/') else { continue };
        let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
        let range = |text: &str| text.parse::<PortRange>().ok();
        for binding in bindings {
            let spec = range(port)
                .zip(range(&binding.host_port))
                .and_then(|(container, host)| PortSpec::new(None, Some(host), container, protocol).ok());
            specs.extend(spec.filter(|spec| !specs.contains(spec)));
        }
    }
    specs.sort_by_key(|spec| (spec.protocol() == Protocol::Udp, spec.host_ports().map(PortRange::first)));
    specs
}

fn check(environment: &Environment, config: &Config) -> Result<()> {
    before(config, NAME)?;
    let ports = ports(environment, config)?;
    let daemon = Daemon::at(&config.socket)?;
    let sandbox = attached(&daemon, config, environment, NAME)?;
    match ports.iter().find(|port| !is_published(&sandbox.network_settings.ports, port)) {
        None => Ok(()),
        Some(missing) => {
            let details = format!("of {}", sandbox.name);
            Err(Failure::new(Code::Wrong, format!("{missing} is not published"), details))
        }
    }
}
