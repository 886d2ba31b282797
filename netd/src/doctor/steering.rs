//! How ports are led past a runtime's reservation sockets, and what keeps that from working.

use netd_api::system::{Check, Feature};
use netd_sys::sysctl;

use super::{failed, fine, warning};
use crate::steer::{EastWest, Steering};

const NAME: &str = "steering";
const EAST_WEST: &str = "east-west";

pub(crate) fn east_west_feature(east_west: &EastWest) -> Feature {
    let (available, detail) = east_west.describe();
    Feature { name: EAST_WEST.into(), available, detail }
}

/// The relay serves all the same, so it is no fault.
pub(super) fn examine_east_west(east_west: &EastWest) -> Check {
    let (available, detail) = east_west.describe();
    if available {
        return fine(EAST_WEST, detail);
    }
    let remedy = "mount cgroups of version 2 (`mount -t cgroup2 none /sys/fs/cgroup`), and use a kernel and a build with BPF";
    warning(EAST_WEST, detail, remedy)
}

pub(crate) fn feature(steering: &Steering) -> Feature {
    let (available, detail) = steering.describe();
    Feature { name: NAME.into(), available, detail }
}

pub(super) fn examine(steering: &Steering) -> Check {
    let (available, detail) = steering.describe();
    if !available {
        return failed(
            NAME,
            detail,
            "set publish.steer to auto or tproxy, or use a kernel and a build with BPF",
        );
    }
    match bridge_filter().filter(|_| steering.is_by_tproxy()) {
        None => fine(NAME, detail),
        Some(key) => warning(
            NAME,
            format!("{detail}, which does not serve sandboxes as clients while {key} is 1"),
            "set it to 0 if nothing needs it, or have sk_lookup used: a kernel and a build with BPF",
        ),
    }
}

/// tproxy leads a packet to its socket in prerouting. One that comes through a bridge with this filter has been there
/// before it comes to the host, where it loses its socket again.
fn bridge_filter() -> Option<String> {
    let keys = ["iptables", "ip6tables"].map(|family| format!("net/bridge/bridge-nf-call-{family}"));
    let on = keys.into_iter().find(|key| sysctl::read(key).is_ok_and(|value| value == "1"))?;
    Some(on.replace('/', "."))
}
