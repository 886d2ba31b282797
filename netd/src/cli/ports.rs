//! `netd port`, `netd publish`, `netd unpublish`: published ports, and how they are written.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::sandbox::{self, PortBinding, PortMap, PublishPort, SandboxParams, UnpublishPort};
use netd_api::value::{ExposeSpec, PortSpec, PublishBy, Reference};

use super::output::{Format, print, print_json};

/// Show the published ports of a sandbox
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd port web               80/tcp -> 0.0.0.0:8080
  netd port web 80            0.0.0.0:8080
  netd port web 53/udp")]
pub(super) struct PortArgs {
    name: Reference,
    /// Only where this port of the sandbox is published
    #[arg(value_name = "PORT[/PROTO]")]
    port: Option<ExposeSpec>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Publish one more port of a running sandbox
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd publish web 8080:80
  netd publish web 127.0.0.1::80             a free port, for this host only
  netd publish dns 53:5353/udp
  netd publish web '[::1]:8000-8010:80'      the first that is free")]
pub(super) struct PublishArgs {
    name: Reference,
    /// [hostIP:][hostPort[-end]:]port[-end][/tcp|udp]
    spec: PortSpec,
    #[command(flatten)]
    by: ByArg,
}

#[derive(Args, Debug)]
pub(super) struct ByArg {
    /// bind: a socket on the port itself; steer: beside the socket that a container runtime keeps on the port
    #[arg(long, value_name = "bind|steer", default_value_t)]
    pub publish_by: PublishBy,
}

/// Close a published port of a running sandbox
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd unpublish web 8080:80
  netd unpublish web 80              wherever port 80 is published")]
pub(super) struct UnpublishArgs {
    name: Reference,
    /// As it was published; without a host port, all of that port
    spec: PortSpec,
}

pub(super) fn show(client: &Client, args: &PortArgs) -> Result<ExitCode> {
    let deed = || format!("show the ports of the sandbox {}", args.name);
    let params = SandboxParams { name: args.name.clone() };
    let mut ports = client.call::<sandbox::Ports>(&params, &Nothing {}).with_context(deed)?;
    if let Some(wanted) = args.port {
        ports.retain(|port, bindings| !bindings.is_empty() && among(port, wanted));
        if ports.is_empty() {
            bail!("{}: {wanted} is not published", deed());
        }
    }
    match args.format {
        Format::Json => print_json(&ports)?,
        Format::Table if args.port.is_some_and(|wanted| wanted.ports.count() == 1) => {
            print(&ports.values().flatten().map(|binding| address(binding) + "\n").collect::<String>())?;
        }
        Format::Table => print(&lines(&ports))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn publish(client: &Client, args: &PublishArgs) -> Result<ExitCode> {
    let body = PublishPort { port: args.spec, publish_by: args.by.publish_by };
    let mut ports = client
        .call::<sandbox::Publish>(&SandboxParams { name: args.name.clone() }, &body)
        .with_context(|| format!("publish {} of the sandbox {}", args.spec, args.name))?;
    let wanted = ExposeSpec { ports: args.spec.container_ports(), protocol: args.spec.protocol() };
    ports.retain(|port, _| among(port, wanted));
    print(&lines(&ports))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn unpublish(client: &Client, args: &UnpublishArgs) -> Result<ExitCode> {
    let body = UnpublishPort { port: args.spec };
    client
        .call::<sandbox::Unpublish>(&SandboxParams { name: args.name.clone() }, &body)
        .with_context(|| format!("unpublish {} of the sandbox {}", args.spec, args.name))?;
    Ok(ExitCode::SUCCESS)
}

/// `80/tcp -> 0.0.0.0:8080`, by number.
fn lines(ports: &PortMap) -> String {
    let mut sorted: Vec<_> =
        ports.iter().filter_map(|(port, bindings)| Some((split(port)?, bindings))).collect();
    sorted.sort_unstable();
    let mut text = String::new();
    for ((number, protocol), bindings) in sorted {
        for binding in bindings {
            text.push_str(&format!("{number}/{protocol} -> {}\n", address(binding)));
        }
    }
    text
}

/// One line for all: `0.0.0.0:8000-8009->80-89/tcp`, neighbours together, ports that are only exposed last.
pub(super) fn condensed(ports: &PortMap) -> String {
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut points: Vec<Run<'_>> = Vec::new();
    for (port, bindings) in ports {
        let Some((number, protocol)) = split(port) else { continue };
        let host = bindings.iter().map(|binding| (binding.host_ip.as_str(), binding.host_port.parse().ok()));
        let host = host.chain(bindings.is_empty().then_some(("", None)));
        points.extend(host.map(|(address, host)| Run { address, protocol, host, first: number, count: 1 }));
    }
    points.sort_unstable_by_key(|run| (run.host.is_none(), run.address, run.protocol, run.first, run.host));
    for point in points {
        match runs.iter_mut().rev().find(|run| run.takes(&point)) {
            Some(run) => run.count += 1,
            None => runs.push(point),
        }
    }
    runs.iter().map(Run::text).collect::<Vec<_>>().join(", ")
}

/// Ports in a row that lead to ports in a row.
struct Run<'a> {
    address: &'a str,
    protocol: &'a str,
    host: Option<u16>,
    first: u16,
    count: u16,
}

impl Run<'_> {
    fn takes(&self, next: &Self) -> bool {
        (self.address, self.protocol) == (next.address, next.protocol)
            && self.first.checked_add(self.count) == Some(next.first)
            && match (self.host, next.host) {
                (Some(host), Some(next)) => host.checked_add(self.count) == Some(next),
                (None, None) => true,
                _ => false,
            }
    }

    fn text(&self) -> String {
        let span = |first: u16| match self.count {
            1 => first.to_string(),
            count => format!("{first}-{}", first.saturating_add(count - 1)),
        };
        let target = format!("{}/{}", span(self.first), self.protocol);
        match self.host {
            Some(host) => format!("{}:{}->{target}", bracketed(self.address), span(host)),
            None => target,
        }
    }
}

fn split(port: &str) -> Option<(u16, &str)> {
    let (number, protocol) = port.split_once('/')?;
    Some((number.parse().ok()?, protocol))
}

fn among(port: &str, wanted: ExposeSpec) -> bool {
    split(port).is_some_and(|(number, protocol)| {
        protocol == wanted.protocol.as_str() && (wanted.ports.first()..=wanted.ports.last()).contains(&number)
    })
}

fn address(binding: &PortBinding) -> String {
    format!("{}:{}", bracketed(&binding.host_ip), binding.host_port)
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

#[cfg(test)]
mod tests;
