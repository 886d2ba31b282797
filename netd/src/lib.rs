//! The one binary: control plane, data plane and command line. A library to its own program and fuzz targets alone.

mod bus;
mod cli;
mod config;
mod daemon;
mod dataplane;
mod docker;
mod doctor;
mod driver;
mod engine;
mod error;
mod files;
mod firewall;
mod guests;
mod hosts;
mod ipam;
mod manager;
mod model;
mod ports;
mod reconcile;
mod resolvconf;
mod resolver;
mod server;
mod steer;
mod store;
mod tables;
mod telemetry;
#[cfg(any(test, fuzzing))]
mod testing;
mod watch;

#[cfg(any(test, fuzzing))]
pub use store::hostile;

/// The program, from its arguments to its exit code.
pub fn main() -> std::process::ExitCode {
    cli::run(daemon::run)
}
