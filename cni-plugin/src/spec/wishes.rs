//! What ADD is asked for beyond the bare attachment: names, addresses, ports, resolvers. From `CNI_ARGS`, `args.cni`
//! and the capabilities in `runtimeConfig`, the later before the earlier. What netd cannot do is refused, by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netd_api::value::{
    Alias, Bandwidth, Hostname, Mac, PortRange, PortSpec, Protocol, ResolvOption, SearchDomain, Subnet,
};

use super::args::Args;
use super::node::Node;
use super::{Config, Environment};
use crate::error::{Code, Failure, Result};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The pod's name or the short id: the one that reverse queries answer.
    pub name: Option<Alias>,
    pub aliases: Vec<Alias>,
    pub hostname: Option<Hostname>,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub mac: Option<Mac>,
    pub ports: Vec<PortSpec>,
    pub dns: Dns,
    /// Subnets that the runtime takes the network to have.
    pub ranges: Vec<Subnet>,
    pub bandwidth: Option<Bandwidth>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    pub servers: Vec<IpAddr>,
    pub domain: Option<String>,
    pub search: Vec<SearchDomain>,
    pub options: Vec<ResolvOption>,
}

impl Wishes {
    pub(crate) fn read(config: &Config, environment: &Environment) -> Result<Self> {
        let args = Args::read(&environment.args)?;
        let root = config.root();
        let capability = |key: &str| root.at(&["runtimeConfig", key]);
        let own_name = args.pod_name.unwrap_or_else(|| environment.short());
        let mut wishes = Self { dns: dns(&root)?, ranges: config.ranges()?, ..Self::default() };
        // A runtime's own name for it need not be one that DNS takes.
        wishes.hostname = own_name.parse().ok();
        wishes.name = own_name.parse().or_else(|_| environment.short().parse()).ok();
        for alias in aliases(capability("aliases")?, &config.name)? {
            if !wishes.aliases.contains(&alias) {
                wishes.aliases.push(alias);
            }
        }
        wishes.bandwidth = bandwidth(capability("bandwidth")?)?;
        wishes.addresses(&args, root.at(&["args", "cni", "ips"])?, capability("ips")?)?;
        wishes.mac = match capability("mac")?.or(root.at(&["args", "cni", "mac"])?).filter(is_given) {
            Some(node) => Some(node.parse()?),
            None => args.mac.map(|mac| from_args("MAC", mac)).transpose()?,
        };
        if let Some(mappings) = capability("portMappings")? {
            for mapping in mappings.items()? {
                wishes.ports.extend(port(&mapping)?);
            }
        }
        Ok(wishes)
    }

    /// At most one a family.
    fn addresses(
        &mut self,
        args: &Args<'_>,
        by_args: Option<Node<'_>>,
        by_runtime: Option<Node<'_>>,
    ) -> Result<()> {
        let by_runtime =
            by_runtime.filter(|list| list.value().as_array().is_none_or(|list| !list.is_empty()));
        let Some(list) = by_runtime.or(by_args) else {
            return args.ip.map_or(Ok(()), |text| {
                let address = from_args("IP", without_prefix(text))?;
                self.take(address);
                Ok(())
            });
        };
        for node in list.items()? {
            let address: IpAddr =
                without_prefix(node.text()?).parse().map_err(|error| node.invalid(&error))?;
            if !self.take(address) {
                return Err(node.unsupported("one address a family is what a container has on a network"));
            }
        }
        Ok(())
    }

    /// False if there is another one of its family.
    fn take(&mut self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => *self.v4.get_or_insert(v4) == v4,
            IpAddr::V6(v6) => *self.v6.get_or_insert(v6) == v6,
        }
    }
}

/// Clients send every member, a burst too where there is no rate.
pub(crate) fn bandwidth(node: Option<Node<'_>>) -> Result<Option<Bandwidth>> {
    let Some(node) = node else { return Ok(None) };
    let number = |key: &str| node.member(key)?.map_or(Ok(0), |member| member.number());
    let wanted = Bandwidth {
        ingress_rate: number("ingressRate")?,
        ingress_burst: number("ingressBurst")?,
        egress_rate: number("egressRate")?,
        egress_burst: number("egressBurst")?,
    };
    wanted.check().map_err(|error| node.invalid(&error))?;
    Ok(wanted.limits().then_some(wanted))
}

/// A list, or as podman and CRI-O send it, lists by network.
fn aliases(node: Option<Node<'_>>, network: &str) -> Result<Vec<Alias>> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let list = if node.value().is_array() { Some(node) } else { node.member(network)? };
    list.map_or_else(|| Ok(Vec::new()), |list| parsed(&list))
}

fn port(mapping: &Node<'_>) -> Result<Option<PortSpec>> {
    let number = |key: &str| mapping.member(key)?.map(|node| node.number::<u16>()).transpose();
    let host = number("hostPort")?.unwrap_or(0);
    if host == 0 {
        return Ok(None);
    }
    let protocol = match mapping.member("protocol")?.filter(is_given) {
        None => Protocol::Tcp,
        Some(node) => match &*node.text()?.to_ascii_lowercase() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(node.unsupported("netd publishes tcp and udp")),
        },
    };
    let address = match mapping.member("hostIP")?.filter(is_given) {
        Some(node) => Some(node.parse()?),
        None => None,
    };
    let invalid = |error| mapping.invalid(&error);
    let container = number("containerPort")?.unwrap_or(0);
    let container = PortRange::new(container, container).map_err(invalid)?;
    let host = PortRange::new(host, host).map_err(invalid)?;
    PortSpec::new(address, Some(host), container, protocol).map(Some).map_err(invalid)
}

/// The runtime's word on servers, searches and options comes before the configuration's, one by one.
impl Dns {
    /// The runtime's word on servers, searches and options comes before the configuration's, one by one.
    pub(crate) fn read(root: &Node<'_>) -> Result<Self> {
        dns(root)
    }
}

fn dns(root: &Node<'_>) -> Result<Dns> {
    let list = |runtime: &str, own: &str| {
        let by_runtime = root.at(&["runtimeConfig", "dns", runtime])?;
        let by_runtime =
            by_runtime.filter(|list| list.value().as_array().is_none_or(|list| !list.is_empty()));
        Ok::<_, Failure>(by_runtime.or(root.at(&["dns", own])?))
    };
    let domain = root.at(&["dns", "domain"])?.filter(is_given);
    Ok(Dns {
        servers: list("servers", "nameservers")?.map_or_else(|| Ok(Vec::new()), |node| parsed(&node))?,
        domain: domain.map(|node| node.text().map(str::to_owned)).transpose()?,
        search: list("searches", "search")?.map_or_else(|| Ok(Vec::new()), |node| parsed(&node))?,
        options: list("options", "options")?.map_or_else(|| Ok(Vec::new()), |node| parsed(&node))?,
    })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(list: &Node<'_>) -> Result<Vec<T>> {
    list.items()?.map(|node| node.parse()).collect()
}

fn from_args<T: std::str::FromStr<Err: std::fmt::Display>>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| {
        Failure::new(
            Code::InvalidEnvironment,
            format!("invalid {key} in CNI_ARGS"),
            format!("{text:?}: {error}"),
        )
    })
}

fn without_prefix(text: &str) -> &str {
    text.split_once('/').map_or(text, |(address, _)| address)
}

/// Clients whose structs have no tags send every member, empty where it is not meant.
fn is_given(node: &Node<'_>) -> bool {
    node.value().as_str() != Some("")
}
