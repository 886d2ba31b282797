//! The host's published ports and who holds them. Pure: the kernel is asked elsewhere, by binding.
//!
//! A request goes candidates -> the first that the kernel lets bind -> [`Ports::claim`]. The table is what makes an
//! error name the owner, and what keeps a port from being handed out twice between two commits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::model::{Id, Model, Protocol, Publish, Sandbox, Service};
use crate::tables::listener_id;

/// The ports that are handed out when the user names none.
pub(crate) const EPHEMERAL: RangeInclusive<u16> = 49152..=65535;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub id: Id,
    /// `sandbox` or `service`.
    pub kind: &'static str,
    pub name: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host port {port} is published already by {} {} ({held})", owner.kind, owner.name)]
pub(crate) struct Clash {
    pub port: u16,
    pub owner: Owner,
    /// The listener in the way: `tcp/0.0.0.0:8080`.
    pub held: Arc<str>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    /// Few addresses hold one port; most often two, `0.0.0.0` and `::`.
    held: BTreeMap<(Protocol, u16), Vec<(IpAddr, Owner)>>,
    /// The last ephemeral port that was claimed.
    last: BTreeMap<Protocol, u16>,
}

impl Ports {
    /// The table as the records tell it.
    pub(crate) fn rebuild(model: &Model) -> Self {
        let mut ports = Self::default();
        let mut sandboxes: Vec<&Sandbox> = model.sandboxes.values().map(|sandbox| &**sandbox).collect();
        sandboxes.sort_by_key(|sandbox| sandbox.created);
        for sandbox in sandboxes {
            for publish in &sandbox.publishes {
                ports.insert(&sandbox.into(), publish);
            }
        }
        for service in model.services.values() {
            ports.follow_service(None, Some(service));
        }
        ports
    }

    /// Another record of a service, whoever has written it: what it publishes is held without asking, as it is in force.
    pub(crate) fn follow_service(&mut self, before: Option<&Service>, after: Option<&Service>) {
        for publish in before.into_iter().flat_map(|service| &service.publishes) {
            let service = before.map_or("", |service| &service.id);
            self.release(service, &publish.as_publish());
        }
        if let Some(service) = after {
            service.publishes.iter().for_each(|publish| self.insert(&service.into(), &publish.as_publish()));
        }
    }

    /// Where a run of `count` free ports can begin within `range`, lowest first.
    pub(crate) fn free(
        &self,
        protocol: Protocol,
        addresses: &[IpAddr],
        range: RangeInclusive<u16>,
        count: u16,
    ) -> impl Iterator<Item = u16> {
        let (first, last) = range.into_inner();
        let end = u32::from(last) + 1;
        (first..=last)
            .take_while(move |&start| u32::from(start) + u32::from(count) <= end)
            .filter(move |&start| self.first_clash(protocol, addresses, start, count).is_none())
    }

    /// The same among the ephemeral ports, each once, beginning behind the last one claimed: a port that was just
    /// given up does not soon lead to somebody else.
    pub(crate) fn ephemeral(
        &self,
        protocol: Protocol,
        addresses: &[IpAddr],
        count: u16,
    ) -> impl Iterator<Item = u16> {
        let (first, last) = (*EPHEMERAL.start(), *EPHEMERAL.end());
        let turn = self.last.get(&protocol).map_or(first, |&port| port.checked_add(1).unwrap_or(first));
        let behind = self.free(protocol, addresses, turn..=last, count);
        // Runs that begin before the turn may reach over it.
        let before =
            self.free(protocol, addresses, first..=last, count).take_while(move |&start| start < turn);
        behind.chain(before)
    }

    /// Takes every port on every address, or none. What the same owner holds already clashes too: a port leads to
    /// one place.
    pub(crate) fn claim(&mut self, owner: &Owner, publish: &Publish) -> Result<(), Clash> {
        let Publish { protocol, addresses, first, count, .. } = publish;
        if let Some(clash) = self.first_clash(*protocol, addresses, *first, *count) {
            return Err(clash);
        }
        self.insert(owner, publish);
        Ok(())
    }

    /// Gives back what of the publish that sandbox or service holds.
    pub(crate) fn release(&mut self, owner: &str, publish: &Publish) {
        for (port, _) in publish.pairs() {
            let key = (publish.protocol, port);
            let Some(holders) = self.held.get_mut(&key) else { continue };
            holders.retain(|(address, held)| &*held.id != owner || !publish.addresses.contains(address));
            if holders.is_empty() {
                self.held.remove(&key);
            }
        }
    }

    fn insert(&mut self, owner: &Owner, publish: &Publish) {
        for (port, _) in publish.pairs() {
            let holders = self.held.entry((publish.protocol, port)).or_default();
            holders.extend(publish.addresses.iter().map(|&address| (address, owner.clone())));
            if publish.ephemeral {
                self.last.insert(publish.protocol, port);
            }
        }
    }

    fn first_clash(&self, protocol: Protocol, addresses: &[IpAddr], first: u16, count: u16) -> Option<Clash> {
        let last = first.saturating_add(count.saturating_sub(1));
        for (&(_, port), holders) in self.held.range((protocol, first)..=(protocol, last)) {
            let in_the_way =
                holders.iter().find(|(held, _)| addresses.iter().any(|&new| clashes(new, *held)));
            if let Some((address, owner)) = in_the_way {
                let held = listener_id(protocol, *address, port);
                return Some(Clash { port, owner: owner.clone(), held });
            }
        }
        None
    }
}

impl From<&Sandbox> for Owner {
    fn from(sandbox: &Sandbox) -> Self {
        Self { id: Arc::clone(&sandbox.id), kind: "sandbox", name: Arc::clone(&sandbox.name) }
    }
}

impl From<&Service> for Owner {
    fn from(service: &Service) -> Self {
        Self { id: Arc::clone(&service.id), kind: "service", name: Arc::clone(&service.name) }
    }
}

/// Sockets of the two families never meet (the IPv6 ones are V6ONLY); within one, the unspecified address is all
/// addresses.
fn clashes(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
}

#[cfg(test)]
mod tests;
