//! What the tables of others do with the packets of sandboxes. An accept in our table is not the last word: a packet
//! that we let through meets every other chain on its hook, and a policy of drop there drops it unless a rule of theirs
//! knows our bridges. Only rules that name a bridge are recognised; the rest of a ruleset is its owner's business.

use std::collections::BTreeSet;

use netd_api::system::Check;
use netd_sys::nft::{Family, Hook, Hooked, Passage};

use super::{fine, or_fine, some_of, warning};
use crate::firewall::TABLE;
use crate::model::{Model, Network};

const NAME: &str = "firewall";

/// Whether frames within a bridge meet the rules for IP (br_netfilter).
#[derive(Clone, Copy, Debug)]
pub(super) struct BridgeFilters {
    pub v4: bool,
    pub v6: bool,
}

pub(super) fn examine(
    model: &Model,
    hooked: &[Hooked],
    passages: &[Passage],
    filters: &BridgeFilters,
) -> Vec<Check> {
    let theirs = hooked.iter().filter(|chain| !chain.accept && !is_ours(chain));
    let faults = theirs.clone().filter(|chain| chain.hook == Hook::Forward).filter_map(|chain| {
        if chain.family == Family::Bridge {
            return frames(model, chain, passages);
        }
        packets(model, chain, passages, filters)
    });
    let mut checks = or_fine(faults.collect(), NAME, "no other table drops what sandboxes send");
    let closed: Vec<String> = theirs.filter(|chain| chain.hook == Hook::Input).map(shown).collect();
    if !closed.is_empty() {
        let detail =
            format!("from outside, published ports are reached as far as {} let them", some_of(&closed));
        checks.push(fine("published-ports", detail));
    }
    checks
}

fn is_ours(chain: &Hooked) -> bool {
    chain.family == Family::Inet && chain.table == TABLE
}

fn shown(chain: &Hooked) -> String {
    format!("chain {} of table {} {}", chain.chain, chain.family.as_str(), chain.table)
}

fn lets_in(chain: &Hooked, passages: &[Passage], link: &str) -> bool {
    let same_table = |passage: &&Passage| passage.family == chain.family && passage.table == chain.table;
    passages.iter().filter(same_table).any(|passage| passage.covers(link))
}

/// A policy for packets of IP.
fn packets(model: &Model, chain: &Hooked, passages: &[Passage], filters: &BridgeFilters) -> Option<Check> {
    let concerned = |network: &Network| match chain.family {
        Family::Ip6 => network.subnets.iter().any(|subnet| subnet.subnet.is_ipv6()),
        _ => true,
    };
    let networks = model.networks.values().map(|network| &**network);
    let stopped: Vec<&Network> =
        networks.filter(|n| concerned(n) && !lets_in(chain, passages, &n.bridge)).collect();
    if stopped.is_empty() {
        return None;
    }
    let bridges: Vec<String> =
        stopped.iter().map(|network| format!("{} ({})", network.bridge, network.name)).collect();
    let within = match chain.family {
        Family::Ip => filters.v4,
        Family::Ip6 => filters.v6,
        _ => filters.v4 || filters.v6,
    };
    let lost = if within {
        "neither the outside, nor, with bridge-nf-call-iptables at 1, their own neighbours"
    } else {
        "not the outside"
    };
    let detail = format!(
        "{} has the policy drop and no rule that accepts by the bridge {}: sandboxes there reach {lost}",
        shown(chain),
        some_of(&bridges)
    );
    Some(warning(NAME, detail, remedy(chain, &stopped)))
}

/// A policy for frames: it knows the ports of a bridge, not the bridge.
fn frames(model: &Model, chain: &Hooked, passages: &[Passage]) -> Option<Check> {
    let ports = model.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints);
    let stopped = ports.filter(|port| !lets_in(chain, passages, &port.host_link)).count();
    let detail = format!(
        "{} has the policy drop and no rule that accepts by the links nv*: {stopped} endpoints do not reach their neighbours",
        shown(chain)
    );
    let rule = format!("nft insert rule bridge {} {} iifname \"nv*\" accept", chain.table, chain.chain);
    (stopped > 0).then(|| warning(NAME, detail, rule))
}

fn remedy(chain: &Hooked, stopped: &[&Network]) -> String {
    let names = |wildcard: char| -> Vec<String> {
        let name = |network: &&Network| match network.bridge.strip_prefix("nd-") {
            Some(_) => format!("nd-{wildcard}"),
            None => network.bridge.to_string(),
        };
        stopped.iter().map(name).collect::<BTreeSet<_>>().into_iter().collect()
    };
    // The names tell who keeps the table: rules of iptables are best added by iptables.
    if chain.chain == "FORWARD" && chain.table == "filter" && chain.family != Family::Inet {
        let program = if chain.family == Family::Ip6 { "ip6tables" } else { "iptables" };
        let rule = |name: String| {
            format!("{program} -I FORWARD -i {name} -j ACCEPT; {program} -I FORWARD -o {name} -j ACCEPT")
        };
        let rules: Vec<String> = names('+').into_iter().map(rule).collect();
        return format!("{}; beside Docker, in DOCKER-USER instead of FORWARD", rules.join("; "));
    }
    let place = format!("{} {} {}", chain.family.as_str(), chain.table, chain.chain);
    let rule = |name: String| {
        ["iifname", "oifname"]
            .map(|key| format!("nft insert rule {place} {key} \"{name}\" accept"))
            .join("; ")
    };
    names('*').into_iter().map(rule).collect::<Vec<_>>().join("; ")
}
