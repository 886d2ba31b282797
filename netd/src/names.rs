//! The two files a sandbox's programs resolve names with: `resolv.conf` and `hosts`. Pure text from records and from
//! the host's own files.
//!
//! On a network with names the resolver is 127.0.0.11 and everything else is behind it. On the default network (and
//! without any) a sandbox asks the host's servers itself, and links are lines of its hosts file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Endpoint, Mode, Model, Sandbox};
use crate::resolvconf::{ResolvConf, Server};
use crate::tables::{RESOLVER, has_view, has_way_out};

/// Asked from the default network where the host's servers are all on its own loopback, as Docker does.
const PUBLIC_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];
const PUBLIC_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888),
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844),
];

/// The sandbox's resolv.conf. One that shares another's namespace shares its file too and has none.
pub(crate) fn resolv_conf(sandbox: &Sandbox, model: &Model, host: &ResolvConf) -> Option<String> {
    let mut wanted = host.overridden(&sandbox.dns);
    let origin = match sandbox.mode {
        Mode::Container(_) => return None,
        Mode::Host => "the host's file".to_owned(),
        Mode::Bridge if has_view(sandbox, model) => {
            let origin = upstreams(sandbox, model, host);
            wanted.servers = vec![server(RESOLVER)];
            with_ndots(&mut wanted.options);
            origin
        }
        Mode::Bridge | Mode::None => on_its_own(sandbox, &mut wanted),
    };
    Some(format!("# Written by netd for {}. Servers: {origin}.\n{}", sandbox.name, wanted.render()))
}

/// Who is asked behind 127.0.0.11, for whoever reads the file.
fn upstreams(sandbox: &Sandbox, model: &Model, host: &ResolvConf) -> String {
    let list = |servers: &mut dyn Iterator<Item = String>| servers.collect::<Vec<_>>().join(" ");
    if !sandbox.dns.servers.is_empty() {
        return format!("those given, {}", list(&mut sandbox.dns.servers.iter().map(IpAddr::to_string)));
    }
    if !has_way_out(sandbox, model) {
        return "none, all networks are internal".to_owned();
    }
    format!("the host's, {}, asked from the host", list(&mut host.servers.iter().map(Server::text)))
}

/// Leaves the servers that can be asked from another namespace.
fn on_its_own(sandbox: &Sandbox, wanted: &mut ResolvConf) -> String {
    if !sandbox.dns.servers.is_empty() {
        return "those given".to_owned();
    }
    let v6 = has_v6(sandbox);
    wanted.servers.retain(|server| server.is_reachable_from_elsewhere() && (v6 || server.address.is_ipv4()));
    if !wanted.servers.is_empty() {
        return "the host's, without those that only it reaches".to_owned();
    }
    let public = PUBLIC_V4.into_iter().map(IpAddr::from);
    wanted.servers =
        public.chain(PUBLIC_V6.into_iter().map(IpAddr::from).filter(|_| v6)).map(server).collect();
    "public ones, because only the host reaches its own".to_owned()
}

/// `ndots:0` unless a number was given: the names of a network have no dots, and the search list would cost a query
/// for each domain.
fn with_ndots(options: &mut Vec<String>) {
    let number = |option: &String| option.strip_prefix("ndots:").map(|value| value.parse::<u32>().is_ok());
    options.retain(|option| number(option) != Some(false));
    if !options.iter().any(|option| number(option) == Some(true)) {
        options.push("ndots:0".to_owned());
    }
}

/// The sandbox's hosts file; `host_file` is the host's own, which a sandbox in the host's namespace sees too.
pub(crate) fn hosts(sandbox: &Sandbox, model: &Model, host_file: &str) -> Option<String> {
    let mut lines = Lines(String::new());
    match sandbox.mode {
        Mode::Container(_) => return None,
        Mode::Host => {
            lines.0.push_str(host_file);
            if !host_file.is_empty() && !host_file.ends_with('\n') {
                lines.0.push('\n');
            }
        }
        Mode::Bridge | Mode::None => lines.loopback(has_v6(sandbox)),
    }
    for (name, address) in &sandbox.extra_hosts {
        lines.add(*address, &[name]);
    }
    for address in sandbox.endpoints.iter().flat_map(Endpoint::addresses) {
        match sandbox.hostname.split_once('.') {
            Some((short, _)) => lines.add(address, &[&sandbox.hostname, short]),
            None => lines.add(address, &[&sandbox.hostname]),
        }
    }
    lines.links(sandbox, model);
    Some(lines.0)
}

struct Lines(String);

impl Lines {
    fn add(&mut self, address: IpAddr, names: &[&str]) {
        self.0.push_str(&format!("{address}\t{}\n", names.join(" ")));
    }

    fn loopback(&mut self, v6: bool) {
        self.0.push_str("127.0.0.1\tlocalhost\n");
        if v6 {
            self.0.push_str(
                "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
                 ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
            );
        }
    }

    /// Links over networks without names; over the others the resolver knows them.
    fn links(&mut self, sandbox: &Sandbox, model: &Model) {
        let unnamed = sandbox
            .endpoints
            .iter()
            .map(|endpoint| &endpoint.network)
            .filter(|network| model.networks.get(*network).is_some_and(|network| !network.resolves));
        let unnamed: Vec<_> = unnamed.collect();
        for link in &sandbox.links {
            let Some(target) = model.sandboxes.get(&link.sandbox) else { continue };
            let shared = target.endpoints.iter().filter(|endpoint| unnamed.contains(&&endpoint.network));
            let mut names: Vec<&str> = vec![&link.alias];
            for name in [&target.hostname, &target.name].map(|name| &**name) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            for address in shared.flat_map(Endpoint::addresses) {
                self.add(address, &names);
            }
        }
    }
}

fn has_v6(sandbox: &Sandbox) -> bool {
    sandbox.endpoints.iter().any(|endpoint| endpoint.v6.is_some())
}

fn server(address: IpAddr) -> Server {
    Server { address, scope: None }
}

#[cfg(test)]
mod tests;
