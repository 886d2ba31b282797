//! The MTU of networks against that of the way out. A packet that is larger than the way out takes depends on path MTU
//! discovery, which firewalls break.

use netd_api::system::Check;
use netd_sys::netlink::link::Link;
use netd_sys::netlink::route::{MAIN, Route};

use super::{fine, some_of, warning};
use crate::model::{Model, Network};

const NAME: &str = "mtu";

/// `mtu_of`: what a network's links are to have by now.
pub(super) fn examine(
    model: &Model,
    mtu_of: impl Fn(&Network) -> u32,
    links: &[Link],
    routes: &[Route],
) -> Vec<Check> {
    let defaults = routes.iter().filter(|route| route.is_default() && route.table == MAIN);
    let ways_out = defaults.filter_map(|route| links.iter().find(|link| Some(link.index) == route.link));
    let Some(narrowest) = ways_out.min_by_key(|link| link.mtu) else {
        return vec![fine(NAME, "there is no default route to compare with")];
    };
    let larger: Vec<String> = model
        .networks
        .values()
        .filter(|network| mtu_of(network) > narrowest.mtu && !network.internal)
        .map(|network| format!("{} ({})", network.name, mtu_of(network)))
        .collect();
    let Link { name, mtu, .. } = narrowest;
    if larger.is_empty() {
        return vec![fine(NAME, format!("no network exceeds the {mtu} of {name}"))];
    }
    let detail = format!("the MTU of {} exceeds the {mtu} of {name}, the way out", some_of(&larger));
    let remedy = format!("create such networks with `-o mtu={mtu}`, or set network.mtu = {mtu}");
    vec![warning(NAME, detail, remedy)]
}
