//! podman 4 with CNI networks, as its user types it.

mod addresses;
mod endings;
mod live;
mod names;
mod ports;

/// What a user of netd writes into /etc/containers/containers.conf.
const SETTINGS: &str = "[network]\nnetwork_backend = \"cni\"\n[engine]\nenable_port_reservation = false\n";
