//! What names a sandbox sees: the zones of its networks, its links, and where the rest is asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use netd_dns::table::{Forward, Name, View, ViewZone};

use super::gateway::{has_view, has_way_out};
use crate::model::{DnsOptions, Model, Sandbox};

/// Where a sandbox finds its name server.
pub(crate) const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// None where there is no namespace of its own (the view of the namespace's owner is the one that is asked), and
/// where no network resolves.
pub(super) fn of(sandbox: &Sandbox, model: &Model) -> Option<View> {
    if !has_view(sandbox, model) {
        return None;
    }
    let zones: Vec<ViewZone> = sandbox
        .endpoints
        .iter()
        .filter_map(|endpoint| model.networks.get(&endpoint.network))
        .filter(|network| network.resolves)
        .map(|network| ViewZone { zone: Arc::clone(&network.id), suffix: network.name.to_lowercase().into() })
        .collect();
    Some(View {
        id: Arc::clone(&sandbox.id),
        names: links(sandbox, model, &zones),
        zones,
        forward: forward(sandbox, model),
        single_labels_are_local: ndots(&sandbox.dns).is_some_and(|ndots| ndots > 0),
    })
}

fn links(sandbox: &Sandbox, model: &Model, zones: &[ViewZone]) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for link in &sandbox.links {
        let Some(target) = model.sandboxes.get(&link.sandbox) else { continue };
        let addresses: Vec<IpAddr> = zones
            .iter()
            .filter_map(|zone| target.endpoints.iter().find(|endpoint| endpoint.network == zone.zone))
            .flat_map(|endpoint| endpoint.addresses())
            .collect();
        if addresses.is_empty() {
            continue;
        }
        let alias: Arc<str> = link.alias.to_lowercase().into();
        match names.iter_mut().find(|name| name.name == alias) {
            Some(name) => name.addresses.extend(addresses),
            None => names.push(Name { name: alias, addresses, ..Name::default() }),
        }
    }
    names
}

fn forward(sandbox: &Sandbox, model: &Model) -> Forward {
    let own: Vec<SocketAddr> = sandbox
        .dns
        .servers
        .iter()
        // A query forwarded there would come back.
        .filter(|&&server| server != RESOLVER)
        .map(|&server| SocketAddr::new(server, 53))
        .collect();
    if !own.is_empty() {
        Forward::Own { servers: own }
    } else if sandbox.dns.servers.is_empty() && has_way_out(sandbox, model) {
        Forward::Host
    } else {
        Forward::Never
    }
}

/// The last `ndots:N` that was given, if it is a number: the resolver library goes by the last one too.
fn ndots(dns: &DnsOptions) -> Option<u32> {
    dns.options.iter().rev().find_map(|option| option.strip_prefix("ndots:")?.parse().ok())
}
