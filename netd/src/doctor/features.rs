//! What of the kernel netd uses, tried rather than read off a version, and what does not work without it.

use netd_api::system::{Check, Feature};
use netd_sys::nft::Nft;
use netd_sys::sysctl;

use super::{failed, fine, warning};

struct Wanted {
    name: &'static str,
    /// What works by it.
    serves: &'static str,
    /// Nothing works without it.
    vital: bool,
    remedy: &'static str,
    found: fn() -> bool,
}

const WANTED: [Wanted; 3] = [
    Wanted {
        name: "nftables",
        serves: "isolation, masquerade, and port 53 in sandboxes",
        vital: true,
        remedy: "use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET, or load nf_tables",
        found: || Nft::open().and_then(|mut nft| nft.tables()).is_ok(),
    },
    Wanted {
        name: "ipv6",
        serves: "networks with IPv6, and published ports on [::]",
        vital: false,
        remedy: "boot without ipv6.disable=1, or give host addresses of IPv4 where you publish",
        found: || has("net/ipv6/conf/all/forwarding"),
    },
    Wanted {
        name: "conntrack",
        serves: "replies to what sandboxes ask of the outside",
        vital: true,
        remedy: "load nf_conntrack",
        found: || has("net/netfilter/nf_conntrack_max"),
    },
];

fn has(key: &str) -> bool {
    sysctl::read(key).is_ok()
}

pub(crate) fn features() -> Vec<Feature> {
    let feature = |wanted: &Wanted| Feature {
        name: wanted.name.into(),
        available: (wanted.found)(),
        detail: wanted.serves.into(),
    };
    WANTED.iter().map(feature).collect()
}

pub(super) fn examine() -> Vec<Check> {
    let check = |wanted: &Wanted| {
        let missing = || format!("missing: without it there are no {}", wanted.serves);
        match ((wanted.found)(), wanted.vital) {
            (true, _) => fine(wanted.name, wanted.serves),
            (false, true) => failed(wanted.name, missing(), wanted.remedy),
            (false, false) => warning(wanted.name, missing(), wanted.remedy),
        }
    };
    WANTED.iter().map(check).collect()
}
