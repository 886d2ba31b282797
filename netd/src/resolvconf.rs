//! The `resolv.conf` of a sandbox with a namespace of its own. Pure text from records and from the host's own file.
//!
//! On a network with names the resolver is 127.0.0.11 and everything else is behind it. On the default network, and
//! without any, a sandbox asks the host's servers itself.

mod host;

pub(crate) use host::{HostConf, Server};

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Model, Sandbox};
use crate::tables::{RESOLVER, has_view, has_way_out};

/// Asked from the default network where the host's servers are all on its own loopback, as Docker does.
const PUBLIC: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844)),
];

/// What the user gave for the sandbox stands in the place of the host's: servers, search domains and options each as a
/// whole.
pub(crate) fn render(sandbox: &Sandbox, model: &Model, host: &HostConf) -> String {
    let dns = &sandbox.dns;
    let search: &[String] = if dns.search.is_empty() { &host.search } else { &dns.search };
    let mut options = if dns.options.is_empty() { host.options.clone() } else { dns.options.clone() };
    let (origin, servers) = if has_view(sandbox, model) {
        with_ndots(&mut options);
        (behind_the_resolver(sandbox, model, host), vec![RESOLVER])
    } else {
        asked_directly(sandbox, host)
    };
    let mut text = format!("# Written by netd for {}. Servers: {origin}.\n", sandbox.name);
    let mut line = |keyword: &str, words: &[&str]| {
        if !words.is_empty() {
            writeln!(text, "{keyword} {}", words.join(" ")).expect("writing to a string does not fail");
        }
    };
    for server in servers {
        line("nameserver", &[&server.to_string()]);
    }
    // As on the command line of Docker, a search domain `.` stands for none.
    let mut domains: Vec<&str> = search.iter().map(String::as_str).filter(|&domain| domain != ".").collect();
    if domains.is_empty() && sandbox.hostname.contains('.') {
        // Without a list the C library searches the domain of the host's name: `web.shop` would ask for `db.shop`.
        domains.push(".");
    }
    line("search", &domains);
    line("options", &options.iter().map(String::as_str).collect::<Vec<_>>());
    text
}

fn behind_the_resolver(sandbox: &Sandbox, model: &Model, host: &HostConf) -> String {
    if !sandbox.dns.servers.is_empty() {
        let given: Vec<String> = sandbox.dns.servers.iter().map(IpAddr::to_string).collect();
        return format!("those given, {}", given.join(" "));
    }
    if !has_way_out(sandbox, model) {
        return "none, all networks are internal".to_owned();
    }
    let host: Vec<String> = host.servers.iter().map(ToString::to_string).collect();
    format!("the host's, {}, asked from the host", host.join(" "))
}

fn asked_directly(sandbox: &Sandbox, host: &HostConf) -> (String, Vec<IpAddr>) {
    if !sandbox.dns.servers.is_empty() {
        return ("those given".to_owned(), sandbox.dns.servers.clone());
    }
    let reachable = |address: &IpAddr| address.is_ipv4() || sandbox.has_v6();
    let servers = host.servers.iter().filter(|server| server.is_reachable_from_elsewhere());
    let servers: Vec<IpAddr> = servers.map(|server| server.address).filter(reachable).collect();
    if !servers.is_empty() {
        return ("the host's, without those that only it reaches".to_owned(), servers);
    }
    let public = PUBLIC.into_iter().filter(reachable).collect();
    ("public ones, because only the host reaches its own".to_owned(), public)
}

/// `ndots:0` unless a number was given: the names of a network have no dots, and the search list would cost a query
/// for each domain.
fn with_ndots(options: &mut Vec<String>) {
    let is_number = |option: &String| option.strip_prefix("ndots:").map(|value| value.parse::<u32>().is_ok());
    options.retain(|option| is_number(option) != Some(false));
    if !options.iter().any(|option| is_number(option) == Some(true)) {
        options.push("ndots:0".to_owned());
    }
}

#[cfg(test)]
mod tests;
