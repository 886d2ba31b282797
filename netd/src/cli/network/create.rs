//! `netd network create`: flags into a request. Gateways, ranges and auxiliary addresses find their subnet by lying in it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::network::{self, CreateIpam, CreateNetwork, CreateSubnet, Driver};
use netd_api::value::{Label, NetworkName, Subnet};

use crate::cli::output::print_line;
use crate::cli::usage;

/// Create a network; prints its id
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd network create app
  netd network create app --subnet 10.7.0.0/16 --ip-range 10.7.1.0/24 --gateway 10.7.0.1
  netd network create app --ipv6 -o mtu=1400
  netd network create db --internal --label team=data
  netd network create shop -d overlay             on every node of the cluster

Options (-o): mtu=N, icc=true|false (sandboxes of this network reach each other), masquerade=true|false (what
leaves takes the host's address), isolate=true|false (other networks are kept out), bridge-name=DEVICE,
big-tcp=auto|on|off (packets beyond 64 KiB within the host; auto: where nothing that leaves it is slower for it).
An overlay takes mtu, icc, masquerade, isolate, and vni=N (else one from 4096 on).")]
pub(in crate::cli) struct CreateArgs {
    name: NetworkName,
    /// bridge: on this host; overlay: on all nodes of a cluster
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge", value_parser = driver)]
    driver: Driver,
    /// At most one per family; without one a free subnet is chosen
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<Subnet>,
    /// The network's own address in the subnet [default: the first]
    #[arg(long, value_name = "IP")]
    gateway: Vec<IpAddr>,
    /// Addresses that are not asked for come from here
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<Subnet>,
    /// An address that is never given to a sandbox
    #[arg(long, value_name = "K=IP")]
    aux_address: Vec<Label>,
    /// An IPv6 subnet too
    #[arg(long)]
    ipv6: bool,
    /// No way out, and no way in from outside
    #[arg(long)]
    internal: bool,
    /// For people and programs; `netd network ls --filter label=K` finds it
    #[arg(long, value_name = "K=V")]
    label: Vec<Label>,
    /// A driver option
    #[arg(short, long, value_name = "K=V")]
    opt: Vec<Label>,
}

pub(super) fn create(client: &Client, args: CreateArgs) -> Result<ExitCode> {
    let deed = format!("create the network {}", args.name);
    let request = match args.request() {
        Ok(request) => request,
        Err(error) => return Ok(usage(&format!("{deed}: {error:#}"))?),
    };
    let network = client.call::<network::Create>(&Nothing {}, &request).context(deed)?;
    print_line(&network.id)?;
    Ok(ExitCode::SUCCESS)
}

impl CreateArgs {
    pub(super) fn request(self) -> Result<CreateNetwork> {
        let has_v6 = self.subnet.iter().any(|subnet| subnet.is_ipv6());
        Ok(CreateNetwork {
            name: self.name,
            driver: self.driver,
            enable_ipv6: self.ipv6 || has_v6,
            ipam: CreateIpam {
                config: subnets(&self.subnet, &self.gateway, &self.ip_range, &self.aux_address)?,
            },
            internal: self.internal,
            options: pairs(self.opt),
            labels: pairs(self.label),
        })
    }
}

fn subnets(
    subnets: &[Subnet],
    gateways: &[IpAddr],
    ranges: &[Subnet],
    auxiliary: &[Label],
) -> Result<Vec<CreateSubnet>> {
    let mut configs: Vec<CreateSubnet> = subnets
        .iter()
        .map(|subnet| CreateSubnet { subnet: Some(*subnet), ..CreateSubnet::default() })
        .collect();
    for gateway in gateways {
        let config = holder(&mut configs, "--gateway", *gateway)?;
        if let Some(other) = config.gateway.replace(*gateway) {
            bail!("--gateway {gateway}: the subnet has the gateway {other} already");
        }
    }
    for range in ranges {
        let config = holder(&mut configs, "--ip-range", range.network())?;
        if let Some(other) = config.ip_range.replace(*range) {
            bail!("--ip-range {range}: the subnet has the range {other} already");
        }
    }
    for entry in auxiliary {
        let address = entry.value.parse();
        let address = address
            .with_context(|| format!("--aux-address {}={}: not an IP address", entry.key, entry.value))?;
        let config = holder(&mut configs, "--aux-address", address)?;
        config.auxiliary_addresses.insert(entry.key.clone(), address);
    }
    Ok(configs)
}

fn holder<'a>(configs: &'a mut [CreateSubnet], flag: &str, address: IpAddr) -> Result<&'a mut CreateSubnet> {
    let holds = |config: &&mut CreateSubnet| config.subnet.is_some_and(|subnet| subnet.contains(address));
    configs.iter_mut().find(holds).with_context(|| format!("{flag} {address}: it lies in no --subnet"))
}

pub(super) fn pairs(labels: Vec<Label>) -> BTreeMap<String, String> {
    labels.into_iter().map(|label| (label.key, label.value)).collect()
}

fn driver(text: &str) -> Result<Driver, String> {
    match text {
        "bridge" => Ok(Driver::Bridge),
        "overlay" => Ok(Driver::Overlay),
        _ => Err("use bridge, or overlay for a network of all nodes of a cluster".into()),
    }
}

#[cfg(test)]
mod tests;
