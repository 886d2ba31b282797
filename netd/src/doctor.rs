//! `netd doctor`: what netd needs from this host, what it found, and what to do about it. Reads only.

use netd_api::system::{Check, Feature, Verdict};
use netd_sys::nft::Nft;
use netd_sys::sysctl;

use crate::error::Chain;
use crate::manager::World;

/// Descriptors a few hundred published ports and sandboxes need.
const DESCRIPTORS: u64 = 16_384;

/// What of the kernel netd can use. Each is tried, not read off a version.
pub(crate) fn features() -> Vec<Feature> {
    let available = |key: &str| sysctl::read(key).is_ok();
    vec![
        Feature {
            name: "nftables".into(),
            available: Nft::open().and_then(|mut nft| nft.tables()).is_ok(),
            detail: "isolation, masquerade, and port 53 in sandboxes".into(),
        },
        Feature {
            name: "ipv6".into(),
            available: available("net/ipv6/conf/all/forwarding"),
            detail: "networks with IPv6, and published ports on [::]".into(),
        },
        Feature {
            name: "conntrack".into(),
            available: available("net/netfilter/nf_conntrack_max"),
            detail: "replies to what sandboxes ask of the outside".into(),
        },
    ]
}

pub(crate) fn examine(world: &mut World) -> Vec<Check> {
    let mut checks: Vec<Check> = features()
        .into_iter()
        .map(|feature| Check {
            verdict: if feature.available { Verdict::Ok } else { Verdict::Failed },
            detail: feature.detail,
            remedy: (!feature.available).then(|| format!("use a kernel with {}", feature.name)),
            name: feature.name,
        })
        .collect();
    checks.push(forwarding());
    checks.push(bridge_filter());
    checks.push(descriptors());
    checks.push(resolvers(world));
    checks.push(mtu(world));
    checks
}

fn check(name: &str, verdict: Verdict, detail: impl Into<String>, remedy: Option<&str>) -> Check {
    Check { name: name.into(), verdict, detail: detail.into(), remedy: remedy.map(Into::into) }
}

fn forwarding() -> Check {
    match sysctl::read("net/ipv4/ip_forward") {
        Ok(value) if value == "1" => check("forwarding", Verdict::Ok, "the host forwards IPv4", None),
        Ok(_) => check(
            "forwarding",
            Verdict::Warning,
            "the host does not forward IPv4: sandboxes reach the host, not the outside",
            Some("netd switches it on when a network is made; see what switched it off, or restart netd"),
        ),
        Err(error) => check("forwarding", Verdict::Failed, Chain(&error).to_string(), None),
    }
}

/// With it, frames inside a bridge pass the forward hooks of every table on the host, such as a policy of drop.
fn bridge_filter() -> Check {
    match sysctl::read("net/bridge/bridge-nf-call-iptables") {
        Ok(value) if value == "1" => check(
            "bridge-filter",
            Verdict::Warning,
            "frames within a bridge pass the host's forward rules (bridge-nf-call-iptables is 1)",
            Some("set it to 0 unless something needs it, or allow the bridges nd-* and netd0 in those rules"),
        ),
        _ => check("bridge-filter", Verdict::Ok, "frames within a bridge pass no rules of the host", None),
    }
}

fn descriptors() -> Check {
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= DESCRIPTORS => {
            check("descriptors", Verdict::Ok, format!("up to {hard} descriptors a process"), None)
        }
        Ok((_, hard)) => check(
            "descriptors",
            Verdict::Warning,
            format!("only {hard} descriptors a process: each sandbox and published port takes some"),
            Some("raise LimitNOFILE of the unit"),
        ),
        Err(errno) => check("descriptors", Verdict::Failed, errno.to_string(), None),
    }
}

fn resolvers(world: &World) -> Check {
    let servers = world.reconcile.host_servers();
    if servers.is_empty() {
        return check(
            "resolvers",
            Verdict::Warning,
            "the host has no resolver: only names of sandboxes resolve",
            Some("name one in the host's resolv.conf, or as dns.servers in netd's configuration"),
        );
    }
    let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
    check("resolvers", Verdict::Ok, format!("other names are asked of {}", shown.join(", ")), None)
}

/// A network whose packets are larger than the way out takes depends on path MTU discovery, which firewalls break.
fn mtu(world: &mut World) -> Check {
    let routes = world.kernel.rtnl.routes().unwrap_or_default();
    let links = world.kernel.rtnl.links().unwrap_or_default();
    let outside = routes.iter().find(|route| route.is_default()).and_then(|route| route.link);
    let Some(outside) = links.iter().find(|link| Some(link.index) == outside) else {
        return check("mtu", Verdict::Ok, "there is no default route to compare with", None);
    };
    let larger: Vec<String> = world
        .model()
        .networks
        .values()
        .filter(|network| network.options.mtu > outside.mtu && !network.internal)
        .map(|network| format!("{} ({})", network.name, network.options.mtu))
        .collect();
    if larger.is_empty() {
        return check(
            "mtu",
            Verdict::Ok,
            format!("no network exceeds the {} of {}", outside.mtu, outside.name),
            None,
        );
    }
    let detail = format!("{} exceed the MTU {} of {}", larger.join(", "), outside.mtu, outside.name);
    check("mtu", Verdict::Warning, detail, Some("create them with `-o mtu=...`, or set network.mtu"))
}
