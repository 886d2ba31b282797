//! The verbs, each a call or two to the daemon: CHECK, DEL, GC and STATUS here, ADD in its own file.

pub(crate) mod add;
mod network;
pub(crate) mod publish;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use netd_api::sandbox::{self, Fault, Sandbox, SandboxParams, Status};
use netd_api::spool::{Spool, Tombstone};
use netd_api::value::LinkName;
use netd_api::{Nothing, system};
use serde_json::Value;

use self::publish::is_published;
use crate::daemon::{Daemon, reference};
use crate::error::{Code, Failure, Result};
use crate::result::addresses_of;
use crate::spec::{Config, Environment, Valid, Verb, Version, Wishes, sandbox_name};
use crate::spool;

/// What stdout is to say.
pub(crate) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    run_with(verb, environment, config, |daemon| add::add(daemon, config, environment))
}

/// The same for a plugin with an ADD of its own.
pub(crate) fn run_with(
    verb: Verb,
    environment: &Environment,
    config: &Config,
    add: impl FnOnce(&Daemon) -> Result<Value>,
) -> Result<Option<Value>> {
    let daemon = Daemon::at(&config.socket)?;
    match verb {
        Verb::Add => {
            let own = attachment(config, environment)?;
            spool::replay(&Spool::new(&config.spool), &own, |attachment| daemon.detach(attachment))?;
            return add(&daemon).map(Some);
        }
        Verb::Del => del(&daemon, config, &attachment(config, environment)?)?,
        Verb::Check => check(&daemon, config, environment)?,
        Verb::Gc => gc(&daemon, config)?,
        Verb::Status => status(&daemon, config)?,
    }
    Ok(None)
}

/// What an ADD makes and a DEL takes away.
pub(crate) fn attachment(config: &Config, environment: &Environment) -> Result<Tombstone> {
    Ok(Tombstone {
        socket: config.socket.clone(),
        sandbox: sandbox_name(&environment.container)?,
        network: config.network.clone(),
        interface: interface(environment)?,
    })
}

pub(crate) fn interface(environment: &Environment) -> Result<LinkName> {
    environment.interface.parse().map_err(|error: netd_api::value::Invalid| {
        Failure::new(Code::InvalidEnvironment, "invalid CNI_IFNAME", error.to_string())
    })
}

/// Nothing but a disk that takes no note keeps a container from going.
fn del(daemon: &Daemon, config: &Config, own: &Tombstone) -> Result<()> {
    match daemon.detach(own) {
        Err(away) if away.code == Code::TryAgain => {
            let spool = Spool::new(&config.spool);
            spool::put(&spool, own).map_err(|error| {
                let folder = spool.folder().display();
                let details =
                    format!("{}; and it cannot be noted for later in {folder}: {error}", away.details);
                Failure::new(Code::TryAgain, away.message, details)
            })?;
            eprintln!("netd-cni: {}; noted, to be done later", away.details);
            Ok(())
        }
        done => done,
    }
}

/// The records against what the runtime was told, and what the kernel has against the records.
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
    let params = SandboxParams { name: reference(&sandbox.id)? };
    let faults = daemon
        .call::<sandbox::Check>(&params, &Nothing {})
        .map_err(|error| Failure::of_daemon(format!("cannot look at {name}"), &error))?;
    let here = |fault: &&Fault| fault.network.as_deref().is_none_or(|other| other == network);
    let found: Vec<&str> = faults.iter().filter(here).map(|fault| &*fault.detail).collect();
    if found.is_empty() { Ok(()) } else { Err(wrong(found.join("; "))) }
}

/// Frees what was attached for this configuration alone: another runtime, or another configuration, may have attached
/// the same container, or others to the same network.
fn gc(daemon: &Daemon, config: &Config) -> Result<()> {
    config.version.at_least(Version::V110, "GC")?;
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
        if is_valid || endpoint.owner != config.owner() {
            continue;
        }
        let attachment = Tombstone {
            socket: config.socket.clone(),
            sandbox: parsed(&sandbox.name)?,
            network: config.network.clone(),
            interface: parsed(&endpoint.interface)?,
        };
        if let Err(failure) = daemon.detach(&attachment) {
            failures.push(format!("{}: {}", failure.message, failure.details));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::Wrong, "not everything could be freed", failures.join("; ")))
}

fn parsed<T: FromStr<Err: Display>>(name: &str) -> Result<T> {
    let strange = |error: T::Err| {
        Failure::new(Code::Internal, "the daemon's answer has a strange name", error.to_string())
    };
    name.parse().map_err(strange)
}

fn status(daemon: &Daemon, config: &Config) -> Result<()> {
    config.version.at_least(Version::V110, "STATUS")?;
    let ready = daemon.call::<system::Readyz>(&Nothing {}, &Nothing {});
    ready.map(drop).map_err(|error| {
        Failure::new(Code::CannotServe, "netd cannot attach containers now", error.to_string())
    })
}

/// Before anything is changed: the namespace is there, and not the host's by mistake.
pub(crate) fn look_at_netns(environment: &Environment) -> Result<()> {
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

/// The devices of the plugin's own namespace, which is the host's. What cannot be read is not held against anybody.
pub(crate) fn is_missing_here(device: &str) -> bool {
    let devices = fs::read_to_string("/proc/self/net/dev");
    devices
        .is_ok_and(|devices| !devices.lines().any(|line| line.trim_start().split(':').next() == Some(device)))
}
