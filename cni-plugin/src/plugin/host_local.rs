//! `host-local`: addresses from ranges, leased in a folder. Only other people's main plugins run it: netd's own `bridge`
//! leases addresses from the daemon. No daemon is needed.

mod range;
mod store;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use self::range::{Range, RangeSet};
use self::store::{Store, addresses};
use super::chain::text;
use crate::error::{Code, Failure, Result};
use crate::spec::{Args, Config, Environment, Node, Verb, Version, sandbox_name};

pub(super) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    match verb {
        Verb::Add => Request::read(config, environment)?.lease(environment, config).map(Some),
        Verb::Del => del(environment, config).map(|()| None),
        Verb::Check => check(environment, config).map(|()| None),
        Verb::Gc => gc(config).map(|()| None),
        Verb::Status => Ok(None),
    }
}

pub(super) struct Request {
    folder: PathBuf,
    sets: Vec<RangeSet>,
    wanted: Vec<IpAddr>,
    routes: Vec<Value>,
    dns: Value,
}

impl Request {
    pub(super) fn read(config: &Config, environment: &Environment) -> Result<Self> {
        let root = config.root();
        let Some(ipam) = root.member("ipam")? else {
            let details = "host-local reads its ranges from there";
            return Err(Failure::new(Code::InvalidConfig, "the configuration has no ipam", details));
        };
        let mut sets: Vec<RangeSet> = RangeSet::single(&ipam)?.into_iter().collect();
        let by_runtime = root.at(&["runtimeConfig", "ipRanges"])?;
        for list in by_runtime.into_iter().chain(ipam.member("ranges")?) {
            for set in list.items()? {
                let Some(read) = RangeSet::read(&set)? else { continue };
                if let Some(other) = sets.iter().find(|other| other.overlaps(&read)) {
                    return Err(set.invalid(&format!("it overlaps the range set {other}")));
                }
                sets.push(read);
            }
        }
        if sets.is_empty() {
            return Err(ipam.invalid(&"it has no ranges"));
        }
        let family = |v4: bool| sets.iter().filter(|set| set.is_ipv4() == v4).count();
        if config.version < Version::V030 && (family(true) > 1 || family(false) > 1) {
            let details =
                format!("{} has one address a family; leave range sets out", config.version.as_str());
            return Err(Failure::new(Code::InvalidConfig, "several addresses of a family", details));
        }
        let routes = match ipam.member("routes")? {
            Some(routes) => routes.items()?.map(|route| route.value().clone()).collect(),
            None => Vec::new(),
        };
        let dns = text(&ipam, "resolvConf")?.map_or_else(|| Ok(json!({})), resolv_conf)?;
        let wanted = wanted(&root, environment)?;
        Ok(Self { folder: folder(config)?, sets, wanted, routes, dns })
    }

    /// All that is asked for, or nothing.
    fn lease(&self, environment: &Environment, config: &Config) -> Result<Value> {
        let failed = |error: io::Error| unusable(&self.folder, &error);
        let store = Store::open(&self.folder).map_err(failed)?;
        let leases = store.leases().map_err(failed)?;
        let (container, interface) = (&environment.container, &environment.interface);
        let is_mine = |lease: &&store::Lease| {
            lease.is_of(container, interface)
                && self.sets.iter().any(|set| set.range_of(lease.address).is_some())
        };
        if let Some(lease) = leases.iter().find(is_mine) {
            let message = format!("{} has been allocated to {container} already", lease.address);
            return Err(Failure::new(Code::Refused, message, format!("for its interface {interface}")));
        }
        let chosen = self.choose(&store, &addresses(&leases))?;
        for (done, (set, address, _)) in chosen.iter().enumerate() {
            let reserved =
                store.reserve(*address, container, interface).and_then(|()| store.set_last(*set, *address));
            if let Err(error) = reserved {
                for (_, address, _) in &chosen[..=done] {
                    if let Err(error) = store.release(*address) {
                        eprintln!("netd-cni: cannot give {address} back: {error}");
                    }
                }
                return Err(failed(error));
            }
        }
        Ok(self.result(config, &chosen))
    }

    fn choose(
        &self,
        store: &Store,
        taken: &std::collections::HashSet<IpAddr>,
    ) -> Result<Vec<(usize, IpAddr, &Range)>> {
        let refused = |cause: String| Failure::new(Code::Refused, "cannot allocate an address", cause);
        let mut open = self.wanted.clone();
        let mut chosen = Vec::with_capacity(self.sets.len());
        for (index, set) in self.sets.iter().enumerate() {
            let asked = open.iter().position(|address| set.range_of(*address).is_some());
            let (address, range) = match asked.map(|place| open.remove(place)) {
                Some(address) => (address, set.exactly(address, taken).map_err(refused)?),
                None => set
                    .next(store.last(index), taken)
                    .ok_or_else(|| refused(format!("no IP addresses available in range set: {set}")))?,
            };
            chosen.push((index, address, range));
        }
        if open.is_empty() {
            return Ok(chosen);
        }
        let left: Vec<String> = open.iter().map(ToString::to_string).collect();
        Err(refused(format!("no range set takes the requested {}", left.join(", "))))
    }

    fn result(&self, config: &Config, chosen: &[(usize, IpAddr, &Range)]) -> Value {
        let mut result = Map::from_iter([("cniVersion".to_owned(), config.version.as_str().into())]);
        let is_v6 = |route: &Value| route["dst"].as_str().is_some_and(|dst| dst.contains(':'));
        let mut ips = Vec::new();
        for (_, address, range) in chosen {
            let cidr = format!("{address}/{}", range.subnet.prefix());
            if config.version < Version::V030 {
                let routes = self.routes.iter().filter(|route| is_v6(route) == address.is_ipv6());
                let routes: Vec<Value> = routes.cloned().collect();
                let mut place = json!({ "ip": cidr, "gateway": range.gateway });
                if !routes.is_empty() {
                    place["routes"] = routes.into();
                }
                result.insert(if address.is_ipv4() { "ip4" } else { "ip6" }.into(), place);
                continue;
            }
            let mut ip = json!({ "address": cidr, "gateway": range.gateway });
            if config.version < Version::V100 {
                ip["version"] = if address.is_ipv4() { "4" } else { "6" }.into();
            }
            ips.push(ip);
        }
        if config.version >= Version::V030 {
            result.insert("ips".into(), ips.into());
            if !self.routes.is_empty() {
                result.insert("routes".into(), self.routes.clone().into());
            }
        }
        if self.dns.as_object().is_some_and(|dns| !dns.is_empty()) {
            result.insert("dns".into(), self.dns.clone());
        }
        result.into()
    }
}

fn del(environment: &Environment, config: &Config) -> Result<()> {
    release(config, |lease| lease.is_of(&environment.container, &environment.interface))
}

fn gc(config: &Config) -> Result<()> {
    let Some(valid) = config.valid_attachments()? else {
        let details = "cni.dev/valid-attachments is missing; an empty list stands for none";
        return Err(Failure::new(Code::InvalidConfig, "GC needs the list of valid attachments", details));
    };
    let valid: BTreeSet<(String, String)> =
        valid.into_iter().map(|valid| (valid.sandbox, valid.interface)).collect();
    let is_valid = |lease: &store::Lease| {
        let Ok(sandbox) = sandbox_name(&lease.container) else { return false };
        match &lease.interface {
            Some(interface) => valid.contains(&(sandbox.to_string(), interface.clone())),
            None => valid.iter().any(|(name, _)| **name == *sandbox),
        }
    };
    release(config, |lease| !is_valid(lease))
}

fn release(config: &Config, is_meant: impl Fn(&store::Lease) -> bool) -> Result<()> {
    let folder = folder(config)?;
    let failed = |error: io::Error| unusable(&folder, &error);
    let Some(store) = Store::open_if_there(&folder).map_err(failed)? else { return Ok(()) };
    let leases = store.leases().map_err(failed)?;
    leases
        .iter()
        .filter(|lease| is_meant(lease))
        .try_for_each(|lease| store.release(lease.address))
        .map_err(failed)
}

fn check(environment: &Environment, config: &Config) -> Result<()> {
    let folder = folder(config)?;
    let failed = |error: io::Error| unusable(&folder, &error);
    let leases = match Store::open_if_there(&folder).map_err(failed)? {
        Some(store) => store.leases().map_err(failed)?,
        None => Vec::new(),
    };
    if leases.iter().any(|lease| lease.is_of(&environment.container, &environment.interface)) {
        return Ok(());
    }
    let message = format!("no address is reserved for {}", environment.container);
    Err(Failure::new(Code::Wrong, message, format!("in {}", folder.display())))
}

/// `CNI_ARGS`, `args.cni.ips` and the capability together; a prefix length is not looked at.
fn wanted(root: &Node<'_>, environment: &Environment) -> Result<Vec<IpAddr>> {
    let bare = |text: &str| text.split('/').next().unwrap_or_default().parse::<IpAddr>();
    let mut wanted = Vec::new();
    let by_args = Args::read(&environment.args)?.ip.unwrap_or_default();
    for text in by_args.split(',').filter(|text| !text.is_empty()) {
        wanted.push(bare(text).map_err(|error| {
            let details = format!("{text:?}: {error}");
            Failure::new(Code::InvalidEnvironment, "invalid IP in CNI_ARGS", details)
        })?);
    }
    for path in [["args", "cni", "ips"].as_slice(), &["runtimeConfig", "ips"]] {
        let Some(list) = root.at(path)? else { continue };
        for node in list.items()? {
            wanted.push(bare(node.text()?).map_err(|error| node.invalid(&error))?);
        }
    }
    Ok(wanted)
}

fn folder(config: &Config) -> Result<PathBuf> {
    let root = config.root();
    let data = match root.member("ipam")? {
        Some(ipam) => text(&ipam, "dataDir")?,
        None => None,
    };
    Ok(Path::new(data.unwrap_or(DEFAULT_FOLDER)).join(&config.name))
}

fn unusable(folder: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Io, format!("cannot use the folder {}", folder.display()), error.to_string())
}

/// A resolver file as `dns` of a result.
pub(super) fn resolv_conf(path: &str) -> Result<Value> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_RESOLVER_FILE).read_to_end(&mut text));
    read.map_err(|error| {
        Failure::new(Code::Io, format!("cannot read the resolver file {path}"), error.to_string())
    })?;
    Ok(resolvers(&String::from_utf8_lossy(&text)))
}

fn resolvers(text: &str) -> Value {
    let mut dns = Map::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let key = match words.next() {
            Some("nameserver") => "nameservers",
            Some("search") => "search",
            Some("options") => "options",
            Some("domain") => {
                if let Some(domain) = words.next() {
                    dns.insert("domain".into(), domain.into());
                }
                continue;
            }
            _ => continue,
        };
        let list = dns.entry(key).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.extend(words.map(Value::from));
        }
    }
    dns.into()
}

const LONGEST_RESOLVER_FILE: u64 = 1 << 20;
const DEFAULT_FOLDER: &str = "/var/lib/cni/networks";

#[cfg(test)]
mod tests;
