//! `netd service update`: what is not named stays as it is.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use netd_api::client::blocking::Client;
use netd_api::service::{self, ServiceParams, UpdateService};
use netd_api::value::{Affinity, Alias, BackendSpec, DrainSpec, Label, Reference, ServicePortSpec};

use super::create::{EastWestArg, HealthArgs, ModeArg, PolicyArg, PublishArg, families, publish};
use crate::cli::usage;

/// Change a service while it serves: all that is asked, or nothing
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd service update web --policy least-connections --drain 1m
  netd service update web --publish-add 9090:90 --publish-rm 8080:80
  netd service update web --health none
  netd service update db --backend-add 192.0.2.9:5432,weight=2 --backend-rm 192.0.2.7:5432

To add what is there already is no failure. Connections that exist go on, unless their backend is taken away.")]
pub(in crate::cli) struct UpdateArgs {
    name: Reference,
    /// What its name leads to from now on: an address of its own, or its endpoints in turns
    #[arg(long, value_enum)]
    endpoint_mode: Option<ModeArg>,
    /// It becomes another name for this one; its ports and backends have to be taken away before
    #[arg(long, value_name = "NAME")]
    external_name: Option<Alias>,
    /// Another address of its own
    #[arg(long, value_name = "IP")]
    vip: Vec<IpAddr>,
    /// A port of its address, as with create
    #[arg(long, visible_alias = "port", value_name = "[NAME=]PORT[:TARGET][/PROTO]")]
    port_add: Vec<ServicePortSpec>,
    /// A port of its address that is not served any more
    #[arg(long, value_name = "PORT[/PROTO]")]
    port_rm: Vec<ServicePortSpec>,
    /// A port of the nodes, as with create
    #[arg(short, long = "publish-add", visible_alias = "publish", value_name = "SPEC", value_parser = publish)]
    publish_add: Vec<PublishArg>,
    /// As it was published; a target port alone stands for all that lead there
    #[arg(long, value_name = "SPEC", value_parser = publish)]
    publish_rm: Vec<PublishArg>,
    /// Who gets the next connection
    #[arg(long, value_enum)]
    policy: Option<PolicyArg>,
    /// none, or client-ip[:SECONDS]
    #[arg(long, value_name = "AFFINITY")]
    affinity: Option<Affinity>,
    #[command(flatten)]
    health: HealthArgs,
    /// How long connections of an endpoint that is drained may go on; none: until they end
    #[arg(long, value_name = "TIME")]
    drain: Option<DrainSpec>,
    /// Choose endpoints on the client's node while there are any
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    prefer_local: Option<bool>,
    /// How clients on the network reach endpoints: through the proxy, or straight
    #[arg(long, value_enum)]
    east_west: Option<EastWestArg>,
    /// An endpoint that is no sandbox, or another weight for it
    #[arg(long, visible_alias = "backend", value_name = "IP:PORT[,weight=N]")]
    backend_add: Vec<BackendSpec>,
    /// An endpoint outside that it has no more
    #[arg(long, value_name = "IP:PORT")]
    backend_rm: Vec<BackendSpec>,
    /// Added, or given another value
    #[arg(short, long, visible_alias = "label-add", value_name = "K=V")]
    label: Vec<Label>,
    /// Taken away
    #[arg(long, value_name = "K")]
    label_rm: Vec<String>,
}

pub(super) fn update(client: &Client, args: UpdateArgs) -> Result<ExitCode> {
    let deed = format!("update the service {}", args.name);
    let params = ServiceParams { name: args.name.clone() };
    let request = match args.request() {
        Ok(request) => request,
        Err(error) => return Ok(usage(&format!("{deed}: {error:#}"))?),
    };
    client.call::<service::Update>(&params, &request).context(deed)?;
    Ok(ExitCode::SUCCESS)
}

impl UpdateArgs {
    fn request(self) -> Result<UpdateService> {
        let (vip, vip6) = families(&self.vip)?;
        let flat = |publishes: Vec<PublishArg>| publishes.into_iter().flat_map(|publish| publish.0).collect();
        Ok(UpdateService {
            endpoint_mode: self.endpoint_mode.map(Into::into),
            external_name: self.external_name,
            vip,
            vip6,
            ports_add: self.port_add,
            ports_remove: self.port_rm,
            publish_add: flat(self.publish_add),
            publish_remove: flat(self.publish_rm),
            policy: self.policy.map(Into::into),
            affinity: self.affinity,
            health: self.health.wish(),
            drain: self.drain,
            prefer_local: self.prefer_local,
            east_west: self.east_west.map(Into::into),
            backends_add: self.backend_add,
            backends_remove: self.backend_rm,
            labels_add: self.label.into_iter().map(|label| (label.key, label.value)).collect(),
            labels_remove: self.label_rm,
        })
    }
}
