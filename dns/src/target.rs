//! Whom a view's unknown names are asked of: some servers, and from where. A target never changes; other servers are
//! another target, so questions under way keep theirs, and answers of the old servers are not given for the new.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use crate::forward::JobId;
use crate::health::{Health, Rank};
use crate::metrics::UpstreamCounters;
use crate::pace::Pace;

/// More servers than this are not asked.
pub(crate) const MOST_SERVERS: usize = 6;

/// Where this server listens in a view's namespace: asking there, from there, would be asking ourselves. In this process'
/// own namespace that address is somebody else, for example Docker where all of this runs in one of its containers.
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
    pub(crate) pace: RefCell<Pace<JobId>>,
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
            let ours = place != Place::Host && address.ip().to_canonical() == OWN_ADDRESS;
            if ours || kept.len() == MOST_SERVERS || kept.iter().any(|other| other.address == address) {
                continue;
            }
            let known =
                before.and_then(|target| target.servers.iter().find(|other| other.address == address));
            kept.push(known.cloned().unwrap_or_else(|| {
                let health = RefCell::default();
                let pace = RefCell::default();
                Rc::new(Upstream { place, address, health, pace, counters: count(address) })
            }));
        }
        Self { id, servers: kept, listed: servers.into() }
    }

    /// The servers' places, the best first; equally good ones as they were listed.
    pub(crate) fn best_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.servers.len()).collect();
        order.sort_by_key(|&server| self.servers[server].rank());
        order
    }

    /// How many of [`Self::best_first`] come before those that have been silent for a while.
    pub(crate) fn lively(&self) -> usize {
        self.servers.iter().filter(|server| !server.is_paused()).count()
    }

    /// Whether it was made for exactly this list.
    pub(crate) fn is_of(&self, servers: &[SocketAddr]) -> bool {
        *self.listed == *servers
    }
}

impl Upstream {
    pub(crate) fn is_paused(&self) -> bool {
        self.health.borrow().is_paused()
    }

    fn rank(&self) -> Rank {
        self.health.borrow().rank(self.pace.borrow().is_full())
    }

    pub(crate) fn count_failure(&self) {
        self.counters.failed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(place: Place, servers: &[&str], before: Option<&Target>) -> Target {
        let servers: Vec<SocketAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        Target::new(1, place, &servers, before, |_| Arc::default())
    }

    fn addresses(target: &Target) -> Vec<String> {
        target.servers.iter().map(|server| server.address.to_string()).collect()
    }

    #[test]
    fn nobody_asks_himself() {
        let listed = ["127.0.0.11:53", "[::ffff:127.0.0.11]:53", "192.0.2.1:53", "192.0.2.1:53"];
        assert_eq!(addresses(&target(Place::View(1), &listed, None)), ["192.0.2.1:53"]);
        assert_eq!(addresses(&target(Place::Host, &listed[..1], None)), ["127.0.0.11:53"]);
    }

    #[test]
    fn what_is_known_of_a_server_outlives_a_change_of_the_list() {
        let before = target(Place::Host, &["192.0.2.1:53", "192.0.2.2:53"], None);
        before.servers[0].health.borrow_mut().refused(std::time::Instant::now());
        let after = target(Place::Host, &["192.0.2.1:53", "192.0.2.3:53"], Some(&before));
        assert_eq!(after.best_first(), [1, 0]);
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<String> = (1..=20).map(|n| format!("192.0.2.{n}:53")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(target(Place::Host, &many, None).servers.len(), MOST_SERVERS);
    }
}
