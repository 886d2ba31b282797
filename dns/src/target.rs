//! Whom a view's unknown names are asked of: some servers, and from where. A target never changes; other servers are
//! another target, so questions under way keep theirs, and answers of the old servers are not given for the new.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use crate::health::Health;
use crate::metrics::UpstreamCounters;

/// More servers than this are not asked.
pub(crate) const MOST_SERVERS: usize = 6;

/// Where this server listens inside a sandbox: asking there would be asking ourselves.
pub(crate) const OWN_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

pub(crate) struct Target {
    /// Part of the key that questions are shared and cached under.
    pub(crate) id: u64,
    pub(crate) servers: Vec<Rc<Upstream>>,
    listed: Box<[SocketAddr]>,
}

/// Where questions leave from: this process' own namespace, or through the sockets of one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Host,
    View(u64),
}

/// One server as seen from one place.
pub(crate) struct Upstream {
    pub(crate) place: Place,
    pub(crate) address: SocketAddr,
    pub(crate) health: RefCell<Health>,
    pub(crate) counters: Arc<UpstreamCounters>,
}

impl Target {
    /// `servers` without doubles and without ourselves; what `before` knows of the same server goes on.
    pub(crate) fn new(
        id: u64,
        place: Place,
        servers: &[SocketAddr],
        before: Option<&Self>,
        mut count: impl FnMut(SocketAddr) -> Arc<UpstreamCounters>,
    ) -> Self {
        let mut kept: Vec<Rc<Upstream>> = Vec::new();
        for &address in servers {
            let ours = address.ip().to_canonical() == OWN_ADDRESS;
            if ours || kept.len() == MOST_SERVERS || kept.iter().any(|other| other.address == address) {
                continue;
            }
            let known =
                before.and_then(|target| target.servers.iter().find(|other| other.address == address));
            kept.push(known.cloned().unwrap_or_else(|| {
                let health = RefCell::default();
                Rc::new(Upstream { place, address, health, counters: count(address) })
            }));
        }
        Self { id, servers: kept, listed: servers.into() }
    }

    /// The servers' places, the best first; equally good ones as they were listed.
    pub(crate) fn best_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.servers.len()).collect();
        order.sort_by_key(|&server| self.servers[server].health.borrow().rank());
        order
    }

    /// Whether it was made for exactly this list.
    pub(crate) fn is_of(&self, servers: &[SocketAddr]) -> bool {
        *self.listed == *servers
    }
}

impl Upstream {
    pub(crate) fn count_failure(&self) {
        self.counters.failed();
    }
}
