//! `netd doctor`: what netd needs from this host, what it found, and what to do about it. Reads only.
//!
//! A check that finds nothing says so in one line; one that finds faults gives a line for each. *Failed* means that
//! something netd promises does not work now; a warning, that it may not, or will not under some conditions. The parts
//! below take plain data where they can; what is read from the kernel is read here.

mod clashes;
mod cluster;
mod devices;
mod features;
mod firewall;
mod mtu;
mod nodes;
mod steering;
mod sysctls;

use std::time::Instant;

use netd_api::system::{Check, Verdict};
use netd_sys::nft::{Hooked, Nft, Passage};
use netd_sys::{KernelError, sysctl};

use crate::error::Chain;
use crate::manager::World;
use crate::model::Network;
pub(crate) use features::features;
pub(crate) use steering::{east_west_feature as east_west, feature as steering};

/// Descriptors a few hundred published ports and sandboxes need.
const DESCRIPTORS: u64 = 16_384;

/// `is_anew`: the ways to other nodes have just been tried.
pub(crate) fn examine(world: &mut World, is_anew: bool) -> Vec<Check> {
    let mut checks = features::examine();
    let (links, addresses, routes) =
        (world.kernel.rtnl.links(), world.kernel.rtnl.addresses(), world.kernel.rtnl.routes());
    checks.extend(sysctls::examine(world.model()));
    let own: Vec<_> = addresses.iter().flatten().map(|addr| addr.address.ip()).collect();
    match (links, addresses, routes) {
        (Ok(links), Ok(addresses), Ok(routes)) => {
            let model = world.model();
            let mtu = |network: &Network| world.kernel.mtu(network);
            checks.extend(devices::examine(model, mtu, &links, &addresses));
            checks.extend(mtu::examine(model, mtu, &links, &routes));
            checks.extend(clashes::subnets(model, &links, &routes));
        }
        (links, addresses, routes) => {
            let errors = [links.err(), addresses.err(), routes.err()];
            checks.extend(errors.into_iter().flatten().map(|error| unreadable("devices", &error)));
        }
    }
    checks.extend(match survey() {
        Ok((hooked, passages)) => firewall::examine(world.model(), &hooked, &passages, &bridge_filters()),
        Err(error) => vec![unreadable("firewall", &error)],
    });
    // Who is no member is not heard: the ways are not to blame.
    let is_member = world.cluster_view().is_some_and(|view| view.trouble.is_none());
    if let Some(underlay) = world.kernel.underlay().filter(|_| is_member) {
        let reached: Vec<_> = world.kernel.reach(Instant::now()).collect();
        let wrong = world.kernel.checksums_are_wrong();
        checks.extend(nodes::examine(underlay, &reached, wrong, is_anew));
    }
    checks.push(clashes::legacy_rules());
    checks.extend(clashes::ports(&world.reconcile.unserved(), world.model()));
    checks.extend(clashes::resolver(world.model()));
    checks.push(steering::examine(world.reconcile.steering()));
    checks.push(steering::examine_east_west(world.reconcile.east_west()));
    checks.extend(cluster::examine(world, &own));
    checks.push(descriptors());
    checks.push(resolvers(world));
    checks
}

fn survey() -> Result<(Vec<Hooked>, Vec<Passage>), KernelError> {
    let mut nft = Nft::open()?;
    Ok((nft.hooked()?, nft.passages()?))
}

/// The families whose rules see frames within a bridge, if any.
fn bridge_filters() -> firewall::BridgeFilters {
    let on = |key: &str| sysctl::read(key).is_ok_and(|value| value == "1");
    firewall::BridgeFilters {
        v4: on("net/bridge/bridge-nf-call-iptables"),
        v6: on("net/bridge/bridge-nf-call-ip6tables"),
    }
}

fn descriptors() -> Check {
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= DESCRIPTORS => {
            fine("descriptors", format!("up to {hard} descriptors a process"))
        }
        Ok((_, hard)) => warning(
            "descriptors",
            format!("only {hard} descriptors a process: each sandbox and published port takes some"),
            "raise LimitNOFILE of the unit",
        ),
        Err(errno) => unreadable("descriptors", &errno),
    }
}

fn resolvers(world: &World) -> Check {
    let servers = world.reconcile.host_servers();
    if servers.is_empty() {
        return warning(
            "resolvers",
            "the host has no resolver: only names of sandboxes resolve",
            "name one in the host's resolv.conf (not 127.0.0.11), or as dns.servers in netd's configuration",
        );
    }
    let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
    fine("resolvers", format!("other names are asked of {}", shown.join(", ")))
}

fn fine(name: &str, detail: impl Into<String>) -> Check {
    Check { name: name.into(), verdict: Verdict::Ok, detail: detail.into(), remedy: None }
}

fn warning(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    let (name, detail, remedy) = (name.into(), detail.into(), Some(remedy.into()));
    Check { name, verdict: Verdict::Warning, detail, remedy }
}

fn failed(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { verdict: Verdict::Failed, ..warning(name, detail, remedy) }
}

fn unreadable(name: &str, error: &dyn std::error::Error) -> Check {
    failed(name, Chain(error).to_string(), "run the daemon as root, on a kernel that is not locked down")
}

/// The faults, or that there is none.
fn or_fine(faults: Vec<Check>, name: &str, detail: impl Into<String>) -> Vec<Check> {
    if faults.is_empty() { vec![fine(name, detail)] } else { faults }
}

/// A few names, and how many more there are.
fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
