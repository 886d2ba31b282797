//! podman 4 with CNI networks, as its user types it.

mod addresses;
mod endings;
mod live;
mod names;
mod ports;
mod stock;

/// What a user of netd writes into /etc/containers/containers.conf.
const SETTINGS: &str = "[network]\nnetwork_backend = \"cni\"\n";
/// The same of a user who lets podman write its networks itself.
const DROP_IN: &str =
    "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"/usr/local/lib/netd/cni\"]\n";
