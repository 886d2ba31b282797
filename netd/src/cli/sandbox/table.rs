//! The table of `netd sandbox ls`.

use std::time::SystemTime;

use netd_api::sandbox::{Sandbox, Status};

use crate::cli::output::{Table, ago};
use crate::cli::ports;

pub(super) fn render(sandboxes: &[Sandbox], id: impl Fn(&Sandbox) -> String, now: SystemTime) -> String {
    let mut table =
        Table::new(&["SANDBOX ID", "NAME", "STATUS", "CREATED", "NETWORKS", "ADDRESSES", "PORTS"]);
    for sandbox in sandboxes {
        let status = match sandbox.state.status {
            Status::Running => "running",
            Status::Dead => "dead",
        };
        table.row([
            id(sandbox),
            sandbox.name.clone(),
            status.into(),
            ago(sandbox.created, now),
            networks(sandbox),
            addresses(sandbox),
            ports::condensed(&sandbox.network_settings.ports),
        ]);
    }
    table.render()
}

fn networks(sandbox: &Sandbox) -> String {
    let names: Vec<&str> = sandbox.network_settings.networks.keys().map(String::as_str).collect();
    if names.is_empty() { sandbox.host_config.network_mode.clone() } else { names.join(", ") }
}

fn addresses(sandbox: &Sandbox) -> String {
    let endpoints = sandbox.network_settings.networks.values();
    let addresses = endpoints.flat_map(|endpoint| [&endpoint.ip_address, &endpoint.global_ipv6_address]);
    addresses.filter(|address| !address.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", ")
}
