//! The lab: machines as network namespaces inside one fresh set of namespaces, daemons started and killed in them,
//! real programs and byte-exact traffic. The scenarios in `tests/tests` and the benchmarks stand on it.
//!
//! A scenario never touches the machine it runs on: see `lab` for how it is shut in, `snapshot` for how that is checked.

pub mod backend;
pub mod capture;
pub mod cluster;
pub mod cni;
pub mod command;
pub mod cuts;
pub mod daemon;
pub mod etcd;
pub mod eventually;
pub mod host;
pub mod http;
pub mod lab;
pub mod load;
pub mod page;
pub mod place;
pub mod proxy_header;
pub mod query;
pub mod refusal;
pub mod report;
pub mod runtimes;
pub mod show;
pub mod snapshot;
pub mod traffic;

pub use backend::Backend;
pub use cluster::Cluster;
pub use command::{Finished, Process};
pub use daemon::{Daemon, Setup, other_build};
pub use eventually::eventually;
pub use host::Host;
pub use lab::{Lab, scenario};
pub use place::Place;
