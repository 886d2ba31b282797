//! `dnsname`: the names of a container on this network, and where they are asked for. podman writes it into its networks
//! as soon as a file of this name lies beside the other plugins.

use netd_api::network::{ChangeEndpoint, NetworkParams, UpdateEndpoint};
use netd_api::sandbox::Sandbox;
use netd_api::value::{Alias, SearchDomain};
use serde_json::{Value, json};

use super::chain::{attached, before, passed_on, refuse, told};
use crate::daemon::{Daemon, reference};
use crate::error::{Code, Failure, Result};
use crate::spec::{Config, Environment, Verb, Wishes, sandbox_name};

const NAME: &str = "dnsname";
/// Where a container on a network with names finds its server.
const SERVER: &str = "127.0.0.11";

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

fn domain(config: &Config) -> Result<Option<SearchDomain>> {
    let root = config.root();
    refuse(&root, "remoteServers", "a container's servers are the host's: netd asks them on its behalf")?;
    root.member("domainName")?.filter(super::chain::is_set).map(|node| node.parse()).transpose()
}

pub(super) struct Names {
    /// What reverse queries answer.
    first: Option<Alias>,
    others: Vec<Alias>,
}

impl Names {
    /// Each bare, and in the domain: what a resolver makes of a name by its search list is answered at once.
    pub(super) fn read(environment: &Environment, config: &Config) -> Result<Self> {
        let domain = domain(config)?;
        let Wishes { name: first, aliases, .. } = Wishes::read(config, environment)?;
        let within =
            |name: &Alias| domain.as_ref().and_then(|domain| format!("{name}.{}", &**domain).parse().ok());
        let long: Vec<Alias> = first.iter().chain(&aliases).filter_map(within).collect();
        Ok(Self { first, others: aliases.into_iter().chain(long).collect() })
    }
}

fn add(environment: &Environment, config: &Config) -> Result<Value> {
    let before = before(config, NAME)?;
    let names = Names::read(environment, config)?;
    let daemon = Daemon::at(&config.socket)?;
    let sandbox = attached(&daemon, config, environment, NAME)?;
    let change = ChangeEndpoint {
        dns_name: names.first,
        add_aliases: names.others,
        ..ChangeEndpoint::of(reference(&sandbox.id)?)
    };
    carry_out(&daemon, config, &sandbox, &change)?;
    let mut result = passed_on(before, config);
    if !result["dns"].is_object() {
        result["dns"] = json!({});
    }
    put(&mut result["dns"]["nameservers"], 0, SERVER);
    if let Some(domain) = domain(config)? {
        put(&mut result["dns"]["search"], usize::MAX, &domain);
    }
    Ok(result)
}

/// Unless it is there already.
fn put(list: &mut Value, place: usize, word: &str) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut().filter(|list| !list.iter().any(|other| other == word)) {
        list.insert(place.min(list.len()), word.into());
    }
}

fn del(environment: &Environment, config: &Config) -> Result<()> {
    let names = Names::read(environment, config)?;
    let daemon = Daemon::at(&config.socket)?;
    let Some(sandbox) = daemon.sandbox(&sandbox_name(&environment.container)?)? else { return Ok(()) };
    if !sandbox.network_settings.networks.contains_key(&*config.network) {
        return Ok(());
    }
    let change = ChangeEndpoint {
        remove_aliases: names.first.into_iter().chain(names.others).collect(),
        ..ChangeEndpoint::of(reference(&sandbox.id)?)
    };
    carry_out(&daemon, config, &sandbox, &change)
}

fn carry_out(daemon: &Daemon, config: &Config, sandbox: &Sandbox, change: &ChangeEndpoint) -> Result<()> {
    let params = NetworkParams { name: reference(&config.network)? };
    daemon.call::<UpdateEndpoint>(&params, change).map(drop).map_err(|error| {
        Failure::of_daemon(format!("cannot set the names of {} on {}", sandbox.name, config.network), &error)
    })
}

fn check(environment: &Environment, config: &Config) -> Result<()> {
    before(config, NAME)?;
    let names = Names::read(environment, config)?;
    let daemon = Daemon::at(&config.socket)?;
    let sandbox = attached(&daemon, config, environment, NAME)?;
    let known = &sandbox.network_settings.networks[&*config.network].dns_names;
    let mut wanted = names.first.iter().chain(&names.others);
    match wanted.find(|name| !known.iter().any(|known| *known == ***name)) {
        None => Ok(()),
        Some(missing) => {
            let message = format!("the name {missing} is not registered");
            Err(Failure::new(Code::Wrong, message, format!("on the network {}", config.network)))
        }
    }
}
