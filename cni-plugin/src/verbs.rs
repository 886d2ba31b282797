//! The verbs, each a call or two to the daemon: CHECK, DEL, GC and STATUS here, ADD in its own file.

mod add;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use netd_api::sandbox::{PortMap, Sandbox, Status};
use netd_api::value::PortSpec;
use netd_api::{Nothing, system};
use serde_json::Value;

use crate::daemon::{Attachment, Daemon};
use crate::error::{Code, Failure, Result};
use crate::result::addresses_of;
use crate::spec::{Config, Environment, OWNER, Valid, Verb, Version, Wishes, sandbox_name};
use crate::spool::Spool;

/// What stdout is to say.
pub(crate) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    let own = Attachment {
        network: config.network.to_string(),
        container: environment.container.clone(),
        interface: environment.interface.clone(),
    };
    let daemon = Daemon::at(&config.socket)?;
    let spool = Spool::new(&config.spool, &config.socket);
    let replay = || spool.replay(Some(&own), |attachment| daemon.detach(attachment));
    match verb {
        Verb::Add => {
            replay()?;
            return add::add(&daemon, config, environment).map(Some);
        }
        Verb::Del => del(&daemon, &spool, &own)?,
        Verb::Check => check(&daemon, config, environment)?,
        Verb::Gc => {
            config.version.at_least(Version::V110, "GC")?;
            replay()?;
            gc(&daemon, config)?;
        }
        Verb::Status => status(&daemon, config)?,
    }
    Ok(None)
}

/// Nothing but a disk that takes no note keeps a container from going.
fn del(daemon: &Daemon, spool: &Spool<'_>, own: &Attachment) -> Result<()> {
    match daemon.detach(own) {
        Err(away) if away.code == Code::TryAgain => {
            eprintln!("netd-cni: {}; noted, to be done later", away.details);
            spool.put(own).map_err(|error| {
                let details = format!("{}; and the note cannot be written: {error}", away.details);
                Failure::new(Code::TryAgain, away.message, details)
            })
        }
        done => {
            if let Err(failure) = spool.replay(Some(own), |attachment| daemon.detach(attachment)) {
                eprintln!("netd-cni: {}: {}", failure.message, failure.details);
            }
            done
        }
    }
}

/// The records against what the runtime was told, and the host's end of the pair, which lives and dies with the
/// container's.
fn check(daemon: &Daemon, config: &Config, environment: &Environment) -> Result<()> {
    config.version.at_least(Version::V040, "CHECK")?;
    let Some(told) = config.prev_result()? else {
        return Err(Failure::new(
            Code::InvalidConfig,
            "CHECK needs prevResult",
            "the configuration has none",
        ));
    };
    look_at_netns(environment)?;
    let wishes = Wishes::read(config, environment)?;
    let network = &*config.network;
    let wrong = |message: String| Failure::new(Code::Wrong, message, format!("on the network {network}"));
    let name = sandbox_name(&environment.container)?;
    let gone = |cause: &str| {
        Failure::new(
            Code::UnknownContainer,
            format!("the container is not attached: {cause}"),
            name.to_string(),
        )
    };
    let sandbox = daemon.sandbox(&name)?.ok_or_else(|| gone("netd does not know it"))?;
    let settings = sandbox.network_settings.networks.get(network);
    let settings = settings.ok_or_else(|| gone("it is on other networks"))?;
    if !lives_in(&sandbox, &environment.netns) {
        return Err(wrong(format!("{} is not the namespace that was attached", environment.netns)));
    }
    if settings.interface != environment.interface {
        return Err(wrong(format!("its device is {}, not {}", settings.interface, environment.interface)));
    }
    let Some(addresses) = addresses_of(told, &environment.interface) else {
        return Err(wrong(format!("prevResult has no device {}", environment.interface)));
    };
    for own in [&settings.ip_address, &settings.global_ipv6_address] {
        let is_told = own.parse().map_or(own.is_empty(), |own| addresses.contains(&own));
        if !is_told {
            return Err(wrong(format!("prevResult does not have the address {own}")));
        }
    }
    if let Some(missing) =
        wishes.ports.iter().find(|port| !is_published(&sandbox.network_settings.ports, port))
    {
        return Err(wrong(format!("{missing} is not published")));
    }
    if is_missing_here(&settings.host_interface) {
        return Err(wrong(format!("the device {} is gone", settings.host_interface)));
    }
    Ok(())
}

fn gc(daemon: &Daemon, config: &Config) -> Result<()> {
    let Some(valid) = config.valid_attachments()? else {
        let details = "cni.dev/valid-attachments is missing; an empty list stands for none";
        return Err(Failure::new(Code::InvalidConfig, "GC needs the list of valid attachments", details));
    };
    let valid: BTreeSet<Valid> = valid.into_iter().collect();
    let network = &*config.network;
    let mut failures = Vec::new();
    for sandbox in daemon.sandboxes(Some(network))? {
        let Some(endpoint) = sandbox.network_settings.networks.get(network) else { continue };
        let interface = endpoint.interface.clone();
        let is_valid = valid.contains(&Valid { sandbox: sandbox.name.clone(), interface });
        if is_valid || !made_by(config, &sandbox) {
            continue;
        }
        if let Err(failure) = daemon.detach_from(&sandbox, network, &endpoint.interface) {
            failures.push(format!("{}: {}", failure.message, failure.details));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::Wrong, "not everything could be freed", failures.join("; ")))
}

/// Several configurations may share a network of netd's. The owner names the one that brought the container in; a
/// later one can claim it on the network that carries its own name only.
fn made_by(config: &Config, sandbox: &Sandbox) -> bool {
    let owner = &sandbox.config.owner;
    *owner == config.owner() || (owner.starts_with(OWNER) && *config.network == *config.name)
}

fn status(daemon: &Daemon, config: &Config) -> Result<()> {
    config.version.at_least(Version::V110, "STATUS")?;
    let ready = daemon.call::<system::Readyz>(&Nothing {}, &Nothing {});
    ready.map(drop).map_err(|error| {
        Failure::new(Code::CannotServe, "netd cannot attach containers now", error.to_string())
    })
}

/// Before anything is changed: the namespace is there, and not the host's by mistake.
fn look_at_netns(environment: &Environment) -> Result<()> {
    let netns = &environment.netns;
    let given = fs::metadata(netns).map_err(|error| {
        let message = format!("cannot look at the namespace {netns}");
        Failure::new(Code::UnknownContainer, message, error.to_string())
    })?;
    let own = fs::metadata("/proc/self/ns/net").map_err(|error| {
        Failure::new(Code::Io, "cannot look at the plugin's own namespace", error.to_string())
    })?;
    if environment.own_netns || (given.dev(), given.ino()) != (own.dev(), own.ino()) {
        return Ok(());
    }
    let details = format!("CNI_NETNS={netns}; a container on the host's network needs no ADD");
    Err(Failure::new(Code::InvalidNamespace, "the namespace is the plugin's own", details))
}

/// Whether the sandbox is alive in that namespace, under whatever path it was joined.
fn lives_in(sandbox: &Sandbox, netns: &str) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let own = identity(&sandbox.network_settings.sandbox_key);
    sandbox.state.status == Status::Running && own.is_some() && own == identity(Path::new(netns))
}

fn is_published(ports: &PortMap, wanted: &PortSpec) -> bool {
    let key = format!("{}/{}", wanted.container_ports().first(), wanted.protocol().as_str());
    let bindings = ports.get(&key).map_or(&[][..], Vec::as_slice);
    let host = wanted.host_ports().map(|ports| ports.first().to_string());
    bindings.iter().any(|binding| {
        let address = wanted.host_address().is_none_or(|address| binding.host_ip == address.to_string());
        address && host.as_ref().is_none_or(|port| binding.host_port == *port)
    })
}

/// The devices of the plugin's own namespace, which is the host's. What cannot be read is not held against anybody.
fn is_missing_here(device: &str) -> bool {
    let devices = fs::read_to_string("/proc/self/net/dev");
    devices
        .is_ok_and(|devices| !devices.lines().any(|line| line.trim_start().split(':').next() == Some(device)))
}
