//! The flags that make a sandbox, and the request they become.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use netd_api::sandbox::{Attachment, CreateSandbox, NetworkMode};
use netd_api::value::{
    AddHost, Alias, ExposeSpec, Hostname, Label, LinkSpec, Mac, MemberSpec, PortSpec, ResolvOption,
    SandboxName, SearchDomain,
};

use super::attach::NetworkArg;
use crate::cli::ports::ByArg;

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    pub name: SandboxName,
    /// NET, bridge (the default), host, none, container:SANDBOX, or name=NET,alias=A,ip=IP,ip6=IP,mac=MAC; repeat
    /// it for several networks
    #[arg(long, value_name = "NET")]
    network: Vec<NetworkArg>,
    /// One more name on the (first) network
    #[arg(long, visible_alias = "network-alias", value_name = "NAME")]
    alias: Vec<Alias>,
    /// This address of the (first) network, not any
    #[arg(long, value_name = "IP")]
    ip: Option<Ipv4Addr>,
    /// The same of IPv6
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    /// This MAC address on the first network, not one that follows from the address
    #[arg(long, visible_alias = "mac-address", value_name = "MAC")]
    mac: Option<Mac>,
    /// [default: the sandbox's name]
    #[arg(long)]
    hostname: Option<Hostname>,
    /// [hostIP:][hostPort[-end]:]port[-end][/tcp|udp]
    #[arg(short, long, value_name = "SPEC")]
    publish: Vec<PortSpec>,
    /// Note a port, for -P
    #[arg(long, value_name = "PORT")]
    expose: Vec<ExposeSpec>,
    /// Publish all noted ports on free host ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    #[command(flatten)]
    by: ByArg,
    /// Ask this server instead of the host's
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Search this domain instead of the host's
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<SearchDomain>,
    /// An option for resolv.conf, as ndots:2
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<ResolvOption>,
    /// A line for the hosts file
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<AddHost>,
    /// See another sandbox under its name or this alias, on the default network too
    #[arg(long, value_name = "SANDBOX[:ALIAS]")]
    link: Vec<LinkSpec>,
    /// Be an endpoint of this service, on its network
    #[arg(long, value_name = "SERVICE[,weight=N]")]
    service: Option<MemberSpec>,
    /// For people and programs; `netd sandbox ls --filter label=K` finds it
    #[arg(short, long, value_name = "K=V")]
    label: Vec<Label>,
    /// Use this namespace, and leave it when the sandbox goes
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
}

impl CreateArgs {
    pub(super) fn request(self) -> Result<CreateSandbox> {
        let (network_mode, networks) = place(self.network, self.alias, self.ip, self.ip6, self.mac)?;
        let netns = self.netns.map(std::path::absolute).transpose().context("--netns")?;
        Ok(CreateSandbox {
            network_mode,
            networks,
            hostname: self.hostname,
            publish: self.publish,
            expose: self.expose,
            publish_all: self.publish_all,
            publish_by: self.by.publish_by,
            dns: self.dns,
            dns_search: self.dns_search,
            dns_options: self.dns_option,
            extra_hosts: self.add_host,
            links: self.link,
            labels: self.label.into_iter().map(|label| (label.key, label.value)).collect(),
            service: self.service,
            netns,
            owner: Some("cli".into()),
            ..CreateSandbox::named(self.name)
        })
    }
}

/// `--alias`, `--ip` and the like are about the first network, as with Docker.
fn place(
    given: Vec<NetworkArg>,
    aliases: Vec<Alias>,
    ip: Option<Ipv4Addr>,
    ip6: Option<Ipv6Addr>,
    mac: Option<Mac>,
) -> Result<(NetworkMode, Vec<Attachment>)> {
    let asks = !aliases.is_empty() || ip.is_some() || ip6.is_some() || mac.is_some();
    let several = given.len() > 1;
    let mut networks = Vec::with_capacity(given.len());
    for network in given {
        match network {
            NetworkArg::Network(attachment) => networks.push(attachment),
            NetworkArg::Mode(mode) if several => bail!("--network {mode} cannot be combined with a network"),
            NetworkArg::Mode(mode) if asks => {
                bail!("--network {mode} takes no --alias, --ip, --ip6 and --mac: there is no network")
            }
            NetworkArg::Mode(mode) => return Ok((mode, Vec::new())),
        }
    }
    if asks && networks.is_empty() {
        networks.push(Attachment::to("bridge".parse()?));
    }
    if let Some(first) = networks.first_mut() {
        first.aliases.extend(aliases);
        first.ipv4_address = once("ip", first.ipv4_address, ip)?;
        first.ipv6_address = once("ip6", first.ipv6_address, ip6)?;
        first.mac_address = once("mac", first.mac_address, mac)?;
    }
    Ok((NetworkMode::Bridge, networks))
}

fn once<T>(flag: &str, in_network: Option<T>, alone: Option<T>) -> Result<Option<T>> {
    match (in_network, alone) {
        (Some(_), Some(_)) => bail!("--{flag} and {flag}= in --network are about the same network: give one"),
        (one, other) => Ok(one.or(other)),
    }
}

#[cfg(test)]
mod tests;
