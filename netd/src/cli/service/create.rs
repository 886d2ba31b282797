//! `netd service create`: flags into a request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::service::{self, CreateService, HealthWish, PublishSpec};
use netd_api::value::{
    Affinity, Alias, BackendSpec, DrainSpec, HealthSpec, Invalid, Label, Reference, ServiceName,
    ServicePortSpec, Span,
};

use crate::cli::output::print_line;
use crate::cli::usage;

/// Create a service; prints its id
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd service create web --network app
  netd sandbox create web1 --service web                          an endpoint of it, on the same network
  netd service create web --network app --port http=80:8080 -p 8080:8080
  netd service create web --network app -p published=443,target=8443,mode=host,proxy-protocol=v2
  netd service create web --network app --health http://:8080/health --drain 30s --policy least-connections
  netd service create db --network app --backend 192.0.2.7:5432 --backend 192.0.2.8:5432,weight=3
  netd service create search --network app --external-name search.example.com

On the network, the name leads to the service's own address (VIP), and tasks.NAME to its endpoints. Without --port
every port of that address leads to the same port of an endpoint.")]
pub(in crate::cli) struct CreateArgs {
    /// Also the name by which sandboxes of the network find it
    name: ServiceName,
    /// Where its address is, and its endpoints are; one of the cluster makes a service of all nodes
    #[arg(long, value_name = "NET")]
    network: Reference,
    /// vip: the name leads to an address of the service's own; dnsrr: to its endpoints, in turns
    #[arg(long, value_enum, default_value_t = ModeArg::Vip)]
    endpoint_mode: ModeArg,
    /// The name is another name for this one, and there are no endpoints
    #[arg(long, value_name = "NAME")]
    external_name: Option<Alias>,
    /// This address of the network, not any; once for each family
    #[arg(long, value_name = "IP")]
    vip: Vec<IpAddr>,
    /// A port of the service's address, and the port of an endpoint that it leads to [default: all, each to its like]
    #[arg(long, value_name = "[NAME=]PORT[:TARGET][/PROTO]")]
    port: Vec<ServicePortSpec>,
    /// A port of the nodes: as a sandbox's, or
    /// published=PORT,target=PORT[,protocol=tcp|udp][,mode=ingress|host][,proxy-protocol=v1|v2][,ip=IP]
    #[arg(short, long, value_name = "SPEC", value_parser = publish)]
    publish: Vec<PublishArg>,
    /// Who gets the next connection
    #[arg(long, value_enum, default_value_t = PolicyArg::RoundRobin)]
    policy: PolicyArg,
    /// none, or client-ip[:SECONDS]: a client stays with its endpoint
    #[arg(long, value_name = "AFFINITY")]
    affinity: Option<Affinity>,
    #[command(flatten)]
    health: HealthArgs,
    /// How long connections of an endpoint that is drained may go on [default: until they end]
    #[arg(long, value_name = "TIME")]
    drain: Option<DrainSpec>,
    /// Choose endpoints on the client's node while there are any
    #[arg(long)]
    prefer_local: bool,
    /// How clients on the network reach endpoints: through the proxy, which tries the next one when a connect fails, or
    /// straight, as fast as neighbours do (best with --health)
    #[arg(long, value_enum, default_value_t = EastWestArg::Relay)]
    east_west: EastWestArg,
    /// An endpoint that is no sandbox
    #[arg(long, value_name = "IP:PORT[,weight=N]")]
    backend: Vec<BackendSpec>,
    /// For people and programs; `netd service ls --filter label=K` finds it
    #[arg(short, long, value_name = "K=V")]
    label: Vec<Label>,
}

#[derive(Args, Debug)]
pub(super) struct HealthArgs {
    /// none, tcp[:PORT] or http://:PORT/PATH
    #[arg(long, value_name = "CHECK")]
    pub health: Option<HealthSpec>,
    /// Between two checks of an endpoint [default: 5s]
    #[arg(long, value_name = "TIME")]
    health_interval: Option<Span>,
    /// For one answer [default: 2s]
    #[arg(long, value_name = "TIME")]
    health_timeout: Option<Span>,
    /// Good answers in a row that make an endpoint ready [default: 1]
    #[arg(long, value_name = "N")]
    health_rise: Option<u16>,
    /// Bad answers in a row that make it failing [default: 2]
    #[arg(long, value_name = "N")]
    health_fall: Option<u16>,
}

/// What one `--publish` stands for: a range is several.
#[derive(Clone, Debug)]
pub(super) struct PublishArg(pub Vec<PublishSpec>);

pub(super) fn publish(text: &str) -> Result<PublishArg, Invalid> {
    PublishSpec::parse(text).map(PublishArg)
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ModeArg {
    Vip,
    Dnsrr,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PolicyArg {
    RoundRobin,
    Weighted,
    LeastConnections,
    SourceHash,
    Maglev,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum EastWestArg {
    Relay,
    Connect,
}

pub(super) fn create(client: &Client, args: CreateArgs) -> Result<ExitCode> {
    let deed = format!("create the service {}", args.name);
    let request = match args.request() {
        Ok(request) => request,
        Err(error) => return Ok(usage(&format!("{deed}: {error:#}"))?),
    };
    let service = client.call::<service::Create>(&Nothing {}, &request).context(deed)?;
    print_line(&service.id)?;
    Ok(ExitCode::SUCCESS)
}

impl CreateArgs {
    pub(super) fn request(self) -> Result<CreateService> {
        let (vip, vip6) = families(&self.vip)?;
        Ok(CreateService {
            endpoint_mode: self.endpoint_mode.into(),
            external_name: self.external_name,
            vip,
            vip6,
            ports: self.port,
            publish: self.publish.into_iter().flat_map(|publish| publish.0).collect(),
            policy: self.policy.into(),
            affinity: self.affinity,
            health: self.health.wish(),
            drain: self.drain,
            prefer_local: self.prefer_local,
            east_west: self.east_west.into(),
            backends: self.backend,
            labels: self.label.into_iter().map(|label| (label.key, label.value)).collect(),
            ..CreateService::named(self.name, self.network)
        })
    }
}

/// One address of each family at most.
pub(super) fn families(vips: &[IpAddr]) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    let (mut v4, mut v6) = (None, None);
    for vip in vips {
        let other = match vip {
            IpAddr::V4(vip) => v4.replace(*vip).map(IpAddr::V4),
            IpAddr::V6(vip) => v6.replace(*vip).map(IpAddr::V6),
        };
        if let Some(other) = other {
            bail!("--vip {vip}: a service has one address of a family, and {other} was given");
        }
    }
    Ok((v4, v6))
}

impl HealthArgs {
    pub(super) fn wish(self) -> HealthWish {
        HealthWish {
            test: self.health,
            interval: self.health_interval,
            timeout: self.health_timeout,
            rise: self.health_rise,
            fall: self.health_fall,
        }
    }
}

impl From<ModeArg> for service::EndpointMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Vip => Self::Vip,
            ModeArg::Dnsrr => Self::Dnsrr,
        }
    }
}

impl From<PolicyArg> for service::Policy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::RoundRobin => Self::RoundRobin,
            PolicyArg::Weighted => Self::Weighted,
            PolicyArg::LeastConnections => Self::LeastConnections,
            PolicyArg::SourceHash => Self::SourceHash,
            PolicyArg::Maglev => Self::Maglev,
        }
    }
}

impl From<EastWestArg> for service::EastWest {
    fn from(way: EastWestArg) -> Self {
        match way {
            EastWestArg::Relay => Self::Relay,
            EastWestArg::Connect => Self::Connect,
        }
    }
}
