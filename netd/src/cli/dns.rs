//! `netd dns`.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use netd_api::Nothing;
use netd_api::client::blocking::Client;
use netd_api::dns::{self, DumpParams, Name, View};
use netd_api::value::Reference;

use super::output::{Format, Table, print, print_json};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    Dump(DumpArgs),
}

/// Show every name a sandbox can see, and what it leads to
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netd dns dump web
  netd dns dump                  what every sandbox sees
  netd dns dump web --format json

A name of a network is answered with the network's name behind it too: db, db.app.")]
pub(super) struct DumpArgs {
    sandbox: Option<Reference>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn dump(client: &Client, args: DumpArgs) -> Result<ExitCode> {
    let deed = match &args.sandbox {
        Some(sandbox) => format!("show the names that the sandbox {sandbox} sees"),
        None => "show names".into(),
    };
    let params = DumpParams { sandbox: args.sandbox };
    let views = client.call::<dns::Dump>(&params, &Nothing {}).context(deed)?;
    match args.format {
        Format::Json => print_json(&views)?,
        Format::Table => print(&render(&views))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn render(views: &[View]) -> String {
    let mut table = Table::new(&["SANDBOX", "NAME", "NETWORK", "LEADS TO", "REVERSE"]);
    for view in views {
        for name in &view.names {
            table.row([
                view.sandbox.clone(),
                name.name.clone(),
                name.network.clone().unwrap_or_else(|| "(link)".into()),
                leads_to(name),
                joined(&name.reverse),
            ]);
        }
        let forward: Vec<String> = view.forward.iter().map(ToString::to_string).collect();
        let forward = if forward.is_empty() { "nowhere".into() } else { forward.join(", ") };
        table.row([view.sandbox.clone(), "*".into(), "(forwarded)".into(), forward, String::new()]);
    }
    table.render()
}

fn leads_to(name: &Name) -> String {
    let addresses = name.addresses.iter().map(ToString::to_string);
    let srv =
        name.srv.iter().map(|srv| format!("SRV {} {} {} {}", srv.priority, srv.weight, srv.port, srv.target));
    let alias = name.alias.iter().map(|alias| format!("CNAME {alias}"));
    alias.chain(addresses).chain(srv).collect::<Vec<_>>().join(", ")
}

fn joined(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use netd_api::dns::Srv;

    use super::*;

    #[test]
    fn names_forwarding_and_links_are_in_the_table() {
        let name = |name: &str, network: Option<&str>, last| Name {
            name: name.into(),
            network: network.map(Into::into),
            addresses: vec![[10, 0, 0, last].into()],
            reverse: if last == 2 { vec![[10, 0, 0, 2].into()] } else { Vec::new() },
            srv: Vec::new(),
            alias: None,
        };
        let bare = |text| Name { addresses: Vec::new(), ..name(text, Some("app"), 3) };
        let srv = vec![Srv { priority: 0, weight: 10, port: 5432, target: "db.app".into() }];
        let view = View {
            sandbox: "web".into(),
            sandbox_id: "0123".into(),
            names: vec![
                name("db", Some("app"), 2),
                name("cache", None, 3),
                Name { srv, ..bare("_sql._tcp.db") },
                Name { alias: Some("pay.example.com".into()), ..bare("pay") },
            ],
            forward: vec!["9.9.9.9:53".parse().unwrap()],
        };
        assert_eq!(
            render(&[view]),
            "SANDBOX  NAME          NETWORK      LEADS TO               REVERSE\n\
             web      db            app          10.0.0.2               10.0.0.2\n\
             web      cache         (link)       10.0.0.3\n\
             web      _sql._tcp.db  app          SRV 0 10 5432 db.app\n\
             web      pay           app          CNAME pay.example.com\n\
             web      *             (forwarded)  9.9.9.9:53\n"
        );
    }
}
