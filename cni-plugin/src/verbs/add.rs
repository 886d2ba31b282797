//! ADD: the network if it is not there, the container's sandbox or one more network for it, and the result.
//!
//! A container has one sandbox, whatever networks it is on: the first ADD makes it, later ones connect it. All of an
//! ADD happens or nothing does; what is left of runtimes that ended without a DEL goes when it is in the way.

use std::collections::BTreeMap;

use netd_api::network::{self, ConnectSandbox, CreateNetwork, Network, NetworkParams};
use netd_api::sandbox::{self, CreateSandbox, EndpointSettings, Sandbox};
use netd_api::value::{Alias, LinkName, PublishBy, Reference, SandboxName, Subnet};
use netd_api::{Code as Said, Nothing};
use serde_json::{Map, Value};

use super::network as network_of;
use super::publish::publish;
use super::{interface, lives_in, look_at_netns};
use crate::daemon::{Daemon, reference};
use crate::error::{Code, Failure, Result};
use crate::result::{Attached, WayOut};
use crate::spec::{Config, DEFAULT, Environment, Version, Wishes, sandbox_name};

pub(super) fn add(daemon: &Daemon, config: &Config, environment: &Environment) -> Result<Value> {
    let before = config.prev_result()?;
    let wishes = Wishes::read(config, environment)?;
    let interface = interface(environment)?;
    one_address_a_family(config.version, before)?;
    look_at_netns(environment)?;
    let name = sandbox_name(&environment.container)?;
    let network = network_of::ensure(daemon, config)?;
    has_the_ranges(&network, &wishes.ranges)?;
    let add = Add { daemon, owner: config.owner(), environment, wishes, interface, name, network };
    let (settings, way_out) = add.attach()?;
    let attached = Attached {
        settings: &settings,
        netns: &environment.netns,
        mtu: add.network.mtu,
        way_out,
        dns: &add.wishes.dns,
    };
    Ok(attached.result(config.version, before))
}

/// Results of the first versions have one place a family, and what an earlier plugin has put there is to stay.
fn one_address_a_family(version: Version, before: Option<&Map<String, Value>>) -> Result<()> {
    let taken = ["ip4", "ip6"].into_iter().find(|key| before.is_some_and(|before| before.contains_key(*key)));
    match taken.filter(|_| version < Version::V030) {
        None => Ok(()),
        Some(key) => {
            let version = version.as_str();
            let message =
                format!("a result of version {version} has one address a family, and prevResult has {key}");
            Err(Failure::new(Code::UnsupportedField, message, "use cniVersion 0.3.1 or a later one"))
        }
    }
}

/// A runtime that hands out ranges means those of the network, as it is or as it is about to be.
fn has_the_ranges(network: &Network, ranges: &[Subnet]) -> Result<()> {
    let own: Vec<Subnet> = network.ipam.config.iter().map(|config| config.subnet).collect();
    match ranges.iter().find(|range| !own.contains(range)) {
        None => Ok(()),
        Some(range) => {
            let own = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            let message = format!("unsupported field runtimeConfig.ipRanges: {range}");
            let details = format!("the network {} has {own}; its subnets stay as it was made", network.name);
            Err(Failure::new(Code::UnsupportedField, message, details))
        }
    }
}

/// Two may find it missing: the one that comes second takes what the first has made.
pub(crate) fn ensure_network(
    daemon: &Daemon,
    name: &str,
    request: impl FnOnce() -> Result<CreateNetwork>,
) -> Result<Network> {
    if let Some(network) = daemon.network(name)? {
        return Ok(network);
    }
    match daemon.call::<network::Create>(&Nothing {}, &request()?) {
        Ok(network) => Ok(network),
        Err(error) => {
            let refused = Failure::of_daemon(format!("cannot make the network {name}"), &error);
            match error.api().map(|api| api.code) {
                Some(Said::Conflict) => daemon.network(name)?.ok_or(refused),
                _ => Err(refused),
            }
        }
    }
}

/// One attachment to be made, whoever asks for it and in whatever form.
pub(crate) struct Add<'a> {
    pub daemon: &'a Daemon,
    pub environment: &'a Environment,
    pub owner: String,
    pub wishes: Wishes,
    pub interface: LinkName,
    pub name: SandboxName,
    pub network: Network,
}

impl Add<'_> {
    pub(crate) fn attach(&self) -> Result<(EndpointSettings, WayOut)> {
        let request = self.request()?;
        let deed = || format!("cannot attach {} to the network {}", self.name, self.network.name);
        let refused = match self.daemon.call::<sandbox::Create>(&Nothing {}, &request) {
            Ok(made) => return self.only_one(made),
            Err(error) => error,
        };
        if !matches!(refused.api().map(|api| api.code), Some(Said::Conflict | Said::Exhausted)) {
            return Err(Failure::of_daemon(deed(), &refused));
        }
        if let Some(present) = self.daemon.sandbox(&self.name)?
            && lives_in(&present, &self.environment.netns)
        {
            return self.join(&present);
        }
        Err(Failure::of_daemon(deed(), &refused))
    }

    fn request(&self) -> Result<CreateSandbox> {
        let dns = &self.wishes.dns;
        let mut request = CreateSandbox::named(self.name.clone());
        request.networks = vec![sandbox::Attachment {
            network: self.network()?,
            aliases: self.aliases(),
            ipv4_address: self.wishes.v4,
            ipv6_address: self.wishes.v6,
            mac_address: self.wishes.mac,
            interface: Some(self.interface.clone()),
            dns_name: self.wishes.name.clone(),
            bandwidth: self.wishes.bandwidth,
        }];
        request.hostname.clone_from(&self.wishes.hostname);
        request.publish.clone_from(&self.wishes.ports);
        // podman and nerdctl keep sockets of their own on the same ports.
        request.publish_by = PublishBy::Steer;
        request.dns.clone_from(&dns.servers);
        request.dns_search.clone_from(&dns.search);
        request.dns_options.clone_from(&dns.options);
        request.labels = BTreeMap::from([(LABEL.to_owned(), self.environment.container.clone())]);
        request.netns = Some(self.environment.netns.as_str().into());
        request.owner = Some(self.owner.clone());
        Ok(request)
    }

    /// The default network knows no names, and refuses them.
    fn aliases(&self) -> Vec<Alias> {
        if self.network.name == DEFAULT { Vec::new() } else { self.wishes.aliases.clone() }
    }

    /// The id, so that the network that was looked at is the one that is joined.
    fn network(&self) -> Result<Reference> {
        reference(&self.network.id)
    }

    fn only_one(&self, made: Sandbox) -> Result<(EndpointSettings, WayOut)> {
        let mut networks = made.network_settings.networks;
        let settings = networks.remove(&self.network.name).ok_or_else(|| {
            let message = format!("the network {} went away", self.network.name);
            Failure::new(Code::TryAgain, message, "the answer does not have it")
        })?;
        Ok((settings, WayOut { v4: true, v6: true }))
    }

    /// One more network for a container that has its sandbox. Its resolvers are what the first ADD said.
    fn join(&self, present: &Sandbox) -> Result<(EndpointSettings, WayOut)> {
        let networks = &present.network_settings.networks;
        if let Some(settings) = networks.get(&self.network.name) {
            let message = format!("the container is on the network {} already", self.network.name);
            let details = format!("{} has it as {}", present.name, settings.interface);
            return Err(Failure::new(Code::Refused, message, details));
        }
        // What was there first stays the way out.
        let way_out = WayOut {
            v4: networks.values().all(|other| other.gateway.is_empty()),
            v6: networks.values().all(|other| other.ipv6_gateway.is_empty()),
        };
        let id = reference(&present.id)?;
        let body = ConnectSandbox {
            sandbox: id.clone(),
            ipv4_address: self.wishes.v4,
            ipv6_address: self.wishes.v6,
            aliases: self.aliases(),
            mac_address: self.wishes.mac,
            interface: Some(self.interface.clone()),
            dns_name: self.wishes.name.clone(),
            bandwidth: self.wishes.bandwidth,
            owner: Some(self.owner.clone()),
        };
        let params = NetworkParams { name: self.network()? };
        let settings = self.daemon.call::<network::Connect>(&params, &body).map_err(|error| {
            let deed = format!("cannot connect {} to the network {}", present.name, self.network.name);
            Failure::of_daemon(deed, &error)
        })?;
        publish(self.daemon, present, &self.wishes.ports).inspect_err(|_| {
            let body = network::DisconnectSandbox { sandbox: id.clone() };
            if let Err(error) = self.daemon.call::<network::Disconnect>(&params, &body) {
                eprintln!("netd-cni: cannot take {} off {} again: {error}", present.name, self.network.name);
            }
        })?;
        Ok((settings, way_out))
    }
}

/// For people who look at the sandbox.
const LABEL: &str = "cni.container-id";
