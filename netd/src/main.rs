//! The one binary: control plane, data plane and command line.

mod firewall;
mod ipam;
mod model;
mod hosts;
mod ports;
mod resolvconf;
mod store;
mod tables;
#[cfg(test)]
mod testing;
mod dataplane;
mod cli;

fn main() {}
