//! Whom the host asks: from the configuration, or from its resolv.conf, read again when that changes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::resolvconf::{HostConf, Server};
use crate::tables::RESOLVER;

pub(crate) struct HostResolver {
    path: PathBuf,
    configured: Vec<IpAddr>,
    conf: HostConf,
    servers: Vec<SocketAddr>,
}

impl HostResolver {
    pub(crate) fn new(path: PathBuf, configured: Vec<IpAddr>) -> Self {
        let mut host = Self { path, configured, conf: HostConf::default(), servers: Vec::new() };
        host.reread();
        host
    }

    pub(crate) fn conf(&self) -> &HostConf {
        &self.conf
    }

    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Whether something is different now. A file that cannot be read is an empty one: names of the sandboxes go on,
    /// other names fail, and the log says why.
    pub(crate) fn reread(&mut self) -> bool {
        let text = std::fs::read_to_string(&self.path).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "cannot read the host's resolvers");
            String::new()
        });
        let mut conf = HostConf::parse(&text);
        if !self.configured.is_empty() {
            conf.servers = self.configured.iter().map(|&address| Server { address, scope: None }).collect();
        }
        // Our own address stands in a file that was copied from a sandbox: a query sent there would come back.
        conf.servers.retain(|server| server.address != RESOLVER);
        let index = |device: &str| nix::net::if_::if_nametoindex(device).ok();
        let servers = conf.servers(index);
        let differs = conf != self.conf || servers != self.servers;
        (self.conf, self.servers) = (conf, servers);
        differs
    }
}
