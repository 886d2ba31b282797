//! The names under which this program takes the place of reference plugins: their configurations come in, netd does the
//! work. What of a configuration has no meaning here is accepted where the outcome holds all the same, and refused by
//! name where it does not; keys that nobody knows travel through.
//!
//! `bridge`, `portmap`, `firewall`, `bandwidth` and `dnsname` call the daemon. `loopback`, `tuning` and `host-local` touch a
//! namespace or a folder and nothing else: they work without it, as the plugins do that they stand for.

mod bandwidth;
mod bridge;
mod chain;
mod dnsname;
mod firewall;
mod host_local;
mod loopback;
pub(crate) mod netavark;
mod portmap;
mod tuning;

use std::ffi::OsStr;
use std::path::Path;

use netd_sys::netns::Netns;
use serde_json::Value;

use crate::error::{Failure, Result};
use crate::spec::{Config, Environment, Verb, Version};
use crate::verbs;

/// Whose place is taken, by the name of the program's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugin {
    Netd,
    Bandwidth,
    Bridge,
    Dnsname,
    Firewall,
    HostLocal,
    Loopback,
    Portmap,
    Tuning,
}

impl Plugin {
    const ALL: [Self; 9] = [
        Self::Netd,
        Self::Bandwidth,
        Self::Bridge,
        Self::Dnsname,
        Self::Firewall,
        Self::HostLocal,
        Self::Loopback,
        Self::Portmap,
        Self::Tuning,
    ];

    /// Any other name is that of the plugin itself.
    pub(crate) fn called(program: &OsStr) -> Self {
        let name = Path::new(program).file_name().unwrap_or_default();
        Self::ALL.into_iter().find(|plugin| name == plugin.name()).unwrap_or(Self::Netd)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Netd => "netd-cni",
            Self::Bandwidth => "bandwidth",
            Self::Bridge => "bridge",
            Self::Dnsname => "dnsname",
            Self::Firewall => "firewall",
            Self::HostLocal => "host-local",
            Self::Loopback => "loopback",
            Self::Portmap => "portmap",
            Self::Tuning => "tuning",
        }
    }

    /// What a runtime reads that asks a plugin for its version: as able as that version of the plugin stood for.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Netd => env!("CARGO_PKG_VERSION"),
            _ => AS_ABLE_AS,
        }
    }

    pub(crate) fn run(
        self,
        verb: Verb,
        environment: &Environment,
        mut config: Config,
    ) -> Result<Option<Value>, (Version, Failure)> {
        let version = config.version;
        let done = match verb {
            Verb::Check => version.at_least(Version::V040, "CHECK"),
            Verb::Gc => version.at_least(Version::V110, "GC"),
            Verb::Status => version.at_least(Version::V110, "STATUS"),
            Verb::Add | Verb::Del => Ok(()),
        };
        let done = done.and_then(|()| match self {
            Self::Netd => verbs::run(verb, environment, &config),
            Self::Bandwidth => bandwidth::run(verb, environment, config.leave_the_default_network()?),
            Self::Bridge => bridge::run(verb, environment, config.leave_the_default_network()?),
            Self::Dnsname => dnsname::run(verb, environment, config.leave_the_default_network()?),
            Self::Firewall => firewall::run(verb, environment, config.leave_the_default_network()?),
            Self::Portmap => portmap::run(verb, environment, config.leave_the_default_network()?),
            Self::HostLocal => host_local::run(verb, environment, &config),
            Self::Loopback => loopback::run(verb, environment, &config),
            Self::Tuning => tuning::run(verb, environment, &config),
        });
        done.map_err(|failure| (version, failure))
    }
}

/// What each of them reads of a configuration before it does anything.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_as_all(config: &Config, environment: &Environment) -> Vec<Failure> {
    let read: [Result<()>; 7] = [
        bandwidth::rates(config).map(drop),
        bridge::Wanted::read(config).map(drop),
        dnsname::Names::read(environment, config).map(drop),
        firewall::options(config).map(drop),
        host_local::Request::read(config, environment).map(drop),
        portmap::ports(environment, config).map(drop),
        tuning::Wanted::read(config, environment).map(drop),
    ];
    read.into_iter().filter_map(Result::err).collect()
}

/// For DEL: `None` if the namespace is gone, was never named, or is the host's own.
fn namespace_if_there(environment: &Environment) -> Option<Netns> {
    let netns = Netns::open(Path::new(&environment.netns)).ok()?;
    let own = Netns::current().ok()?;
    (environment.own_netns || netns.id() != own.id()).then_some(netns)
}

/// Release of the reference plugins whose configurations are taken.
const AS_ABLE_AS: &str = "1.9.0";

#[cfg(test)]
mod tests;
