//! Settings of the kernel that netd has made, or relies on, and that somebody may have turned back.

use netd_api::system::Check;
use netd_sys::sysctl;

use super::{failed, or_fine};
use crate::model::{Model, Network};

const NAME: &str = "sysctls";

/// What a setting has to be, and what does not work while it is not.
struct Wanted {
    key: String,
    value: &'static str,
    without: String,
}

pub(super) fn examine(model: &Model) -> Vec<Check> {
    let wanted = wanted(model);
    let faults = wanted.iter().filter_map(|wanted| {
        // One that cannot be read belongs to a device that is not there, or a kernel without IPv6: others tell.
        let found = sysctl::read(&wanted.key).ok().filter(|found| found != wanted.value)?;
        let (key, value) = (wanted.key.replace('/', "."), wanted.value);
        let detail = format!("{key} is {found}: {}", wanted.without);
        let remedy = format!(
            "sysctl -w {}={value}; see what turned it back (sysctl.d, a firewall, another network manager)",
            wanted.key
        );
        Some(failed(NAME, detail, remedy))
    });
    or_fine(faults.collect(), NAME, "what netd has set is as netd has set it")
}

fn wanted(model: &Model) -> Vec<Wanted> {
    let has_v6 = |network: &Network| network.subnets.iter().any(|subnet| subnet.subnet.is_ipv6());
    let wanted = |key: String, value, without: String| Wanted { key, value, without };
    let outside = "sandboxes reach the host, not the outside";
    let mut all = vec![wanted("net/ipv4/ip_forward".into(), "1", outside.into())];
    if model.networks.values().any(|network| has_v6(network)) {
        all.push(wanted("net/ipv6/conf/all/forwarding".into(), "1", format!("{outside}, by IPv6")));
    }
    for network in model.networks.values() {
        let (name, bridge) = (&network.name, &network.bridge);
        let key = |family: &str, key: &str| format!("net/{family}/conf/{bridge}/{key}");
        if !network.internal {
            let closed = format!("sandboxes of network {name} do not reach the outside");
            all.push(wanted(key("ipv4", "forwarding"), "1", closed));
        }
        if has_v6(network) {
            let gone = format!("network {name} has no IPv6 gateway");
            all.push(wanted(key("ipv6", "disable_ipv6"), "0", gone));
        }
    }
    all
}
