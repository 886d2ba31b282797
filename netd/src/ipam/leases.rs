//! The addresses of one network and who holds them.
//!
//! A dynamic address is the next free one after the last that was handed out, so an address that has just been given
//! back rests until the range has been walked once: caches and open connections of its old holder do not meet a
//! stranger.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use sha2::{Digest as _, Sha256};

use super::band::band;
use super::error::{Invalid, IpamError, some_of};
use super::runs::Runs;
use super::span::{Family, Span, number};
use super::walk::check_address;
use crate::model::{Id, Lease, LeaseHolder, Network, Sandbox, Service, Subnet};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Or service.
    pub sandbox: Id,
    pub name: Arc<str>,
    /// On a network of the cluster: where it is.
    pub node: Option<Id>,
    pub is_service: bool,
}

impl Holder {
    pub(crate) fn sandbox(id: &Id, name: &Arc<str>) -> Self {
        Self { sandbox: Arc::clone(id), name: Arc::clone(name), node: None, is_service: false }
    }

    pub(crate) fn service(service: &Service) -> Self {
        let (id, name) = (Arc::clone(&service.id), Arc::clone(&service.name));
        Self { sandbox: id, name, node: None, is_service: true }
    }
}

impl From<&Lease> for Holder {
    fn from(lease: &Lease) -> Self {
        let (LeaseHolder::Sandbox(holder) | LeaseHolder::Service(holder)) = &lease.holder;
        let is_service = !lease.is_of_sandbox();
        Self {
            sandbox: Arc::clone(holder),
            name: Arc::clone(&lease.name),
            // A service is on no node.
            node: (!is_service).then(|| Arc::clone(&lease.node)),
            is_service,
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_service { "service" } else { "sandbox" };
        match &self.node {
            None => write!(f, "{kind} {}", self.name),
            Some(node) => write!(f, "{kind} {} on node {node}", self.name),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Leases {
    network: Arc<str>,
    /// At most one per family.
    subnets: Vec<SubnetLeases>,
}

#[derive(Clone, Debug)]
struct SubnetLeases {
    subnet: IpNetwork,
    gateway: IpAddr,
    auxiliary: BTreeMap<String, IpAddr>,
    /// What the user sees as the part dynamic addresses come from.
    part: IpNetwork,
    dynamic: Span,
    /// Kept for services.
    band: Option<Span>,
    held: BTreeMap<u128, Holder>,
    /// Everything that cannot be handed out: held, gateway, auxiliary.
    taken: Runs,
    /// Where the search for the next dynamic address begins.
    next: u128,
    /// The same for a service's.
    next_vip: u128,
    /// Given back since, or perhaps before it was known who held what: neighbours may remember its last holder.
    remembered: Runs,
}

impl Leases {
    pub(crate) fn new(network: &Network) -> Self {
        Self {
            network: Arc::clone(&network.name),
            subnets: network.subnets.iter().map(SubnetLeases::new).collect(),
        }
    }

    /// The table as the records tell it. The walk goes on behind the address of the youngest sandbox.
    pub(crate) fn rebuild<'a>(
        network: &Network,
        sandboxes: impl IntoIterator<Item = &'a Sandbox>,
        services: impl IntoIterator<Item = &'a Service>,
    ) -> Self {
        let mut leases = Self::new(network);
        for service in services {
            for vip in service.vips() {
                let Ok(subnet) = leases.subnet(Family::of(vip)) else { continue };
                subnet.hold(number(vip), Holder::service(service));
            }
        }
        let mut youngest = BTreeMap::new();
        for sandbox in sandboxes {
            let holder = Holder::sandbox(&sandbox.id, &sandbox.name);
            for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.network == network.id) {
                for address in endpoint.addresses() {
                    let Ok(subnet) = leases.subnet(Family::of(address)) else { continue };
                    subnet.hold(number(address), holder.clone());
                    let age = youngest.entry(Family::of(address)).or_insert(sandbox.created);
                    if *age <= sandbox.created {
                        *age = sandbox.created;
                        subnet.walk_past(number(address));
                    }
                }
            }
        }
        for subnet in &mut leases.subnets {
            let whole = Span::from(subnet.subnet);
            subnet.remembered.insert(whole.first, whole.last);
        }
        leases
    }

    /// The table of a network that many nodes share, for [`Self::note`] to fill. Each node begins its search elsewhere.
    pub(crate) fn shared(network: &Network, node: &str) -> Self {
        let mut leases = Self::new(network);
        let digest = Sha256::digest(node.as_bytes());
        leases.begin_at(digest[..8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)));
        for subnet in &mut leases.subnets {
            let whole = Span::from(subnet.subnet);
            subnet.remembered.insert(whole.first, whole.last);
        }
        leases
    }

    /// Where the next searches begin, sandboxes' and services': any number is a place.
    pub(crate) fn begin_at(&mut self, place: u64) {
        let within = |span: Span| {
            let length = span.last.saturating_sub(span.first).saturating_add(1);
            span.first + u128::from(place) % length.max(1)
        };
        for subnet in &mut self.subnets {
            subnet.next = within(subnet.dynamic);
            subnet.next_vip = subnet.band.map_or(0, within);
        }
    }

    /// Who has an address, as the cluster's store tells it.
    pub(crate) fn note(&mut self, address: IpAddr, holder: Holder) {
        if let Ok(subnet) = self.subnet(Family::of(address)) {
            subnet.hold(number(address), holder);
        }
    }

    /// The same for one that nobody has any more.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        let holder = self.held_by(address).map(|holder| Arc::clone(&holder.sandbox));
        if let Some(holder) = holder {
            self.release(address, &holder);
        }
    }

    fn held_by(&self, address: IpAddr) -> Option<&Holder> {
        let family = Family::of(address);
        self.subnets.iter().find(|subnet| subnet.dynamic.family == family)?.held.get(&number(address))
    }

    /// Whether no neighbour can remember another holder of that address.
    pub(crate) fn is_fresh(&self, address: IpAddr) -> bool {
        let number = number(address);
        let mut subnets = self.subnets.iter();
        let subnet = subnets.find(|subnet| subnet.dynamic.family == Family::of(address));
        subnet.is_some_and(|subnet| subnet.remembered.next_free(number) == Some(number))
    }

    pub(crate) fn has(&self, family: Family) -> bool {
        self.subnets.iter().any(|subnet| subnet.dynamic.family == family)
    }

    /// The next free dynamic address and its prefix length.
    pub(crate) fn lease(&mut self, family: Family, holder: &Holder) -> Result<(IpAddr, u8), IpamError> {
        let network = Arc::clone(&self.network);
        let subnet = self.subnet(family)?;
        let Some(free) = subnet.next_free() else { return Err(subnet.exhausted(network)) };
        subnet.hold(free, holder.clone());
        subnet.walk_past(free);
        Ok((family.address(free), subnet.subnet.prefix()))
    }

    /// The next free address of those that are kept for services.
    pub(crate) fn lease_vip(&mut self, family: Family, holder: &Holder) -> Result<(IpAddr, u8), IpamError> {
        let network = Arc::clone(&self.network);
        let subnet = self.subnet(family)?;
        let Some(band) = subnet.band else {
            return Err(Invalid::NoBand { network, subnet: subnet.subnet }.into());
        };
        let from = |start| subnet.taken.next_free(start).filter(|&free| band.contains(free));
        let Some(free) = from(subnet.next_vip).or_else(|| from(band.first)) else {
            let (first, last) = (family.address(band.first), family.address(band.last));
            return Err(IpamError::VipsExhausted { family, network, first, last });
        };
        subnet.hold(free, holder.clone());
        subnet.next_vip = free.saturating_add(1);
        Ok((family.address(free), subnet.subnet.prefix()))
    }

    /// The address the user asked for; it need not lie in the range of the dynamic ones.
    pub(crate) fn reserve(&mut self, address: IpAddr, holder: &Holder) -> Result<(IpAddr, u8), IpamError> {
        let network = Arc::clone(&self.network);
        let subnet = self.subnet(Family::of(address))?;
        subnet.refuse_reserved(address)?;
        if let Some(holder) = subnet.holder(address) {
            return Err(IpamError::AddressTaken { address, network, holder });
        }
        subnet.hold(number(address), holder.clone());
        Ok((address, subnet.subnet.prefix()))
    }

    /// Who has the address, if anybody, for a person to read.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<String> {
        let family = Family::of(address);
        self.subnets.iter().find(|subnet| subnet.dynamic.family == family)?.holder(address)
    }

    /// Gives the address back if that sandbox holds it, and says whether it did.
    pub(crate) fn release(&mut self, address: IpAddr, sandbox: &str) -> bool {
        let Ok(subnet) = self.subnet(Family::of(address)) else { return false };
        let number = number(address);
        if subnet.held.get(&number).is_none_or(|holder| &*holder.sandbox != sandbox) {
            return false;
        }
        subnet.held.remove(&number);
        subnet.taken.remove(number);
        subnet.remembered.insert(number, number);
        true
    }

    fn subnet(&mut self, family: Family) -> Result<&mut SubnetLeases, Invalid> {
        let network = &self.network;
        self.subnets
            .iter_mut()
            .find(|subnet| subnet.dynamic.family == family)
            .ok_or_else(|| Invalid::NoFamily { network: Arc::clone(network), family })
    }
}

impl SubnetLeases {
    fn new(record: &Subnet) -> Self {
        let hosts = Span::hosts(record.subnet);
        let part = record.range.unwrap_or(record.subnet);
        let range = Span::from(part);
        let band = band(record.subnet);
        // Who names a range has chosen: it may reach into what is kept for services.
        let last = match band.filter(|_| record.range.is_none()) {
            Some(band) => band.first - 1,
            None => hosts.last,
        };
        let dynamic =
            Span { family: hosts.family, first: range.first.max(hosts.first), last: range.last.min(last) };
        let mut taken = Runs::default();
        for &address in record.auxiliary.values().chain([&record.gateway]) {
            taken.insert(number(address), number(address));
        }
        Self {
            subnet: record.subnet,
            gateway: record.gateway,
            auxiliary: record.auxiliary.clone(),
            part,
            dynamic,
            next_vip: band.map_or(0, |band| band.first),
            band,
            held: BTreeMap::new(),
            taken,
            next: dynamic.first,
            remembered: Runs::default(),
        }
    }

    fn hold(&mut self, number: u128, holder: Holder) {
        self.held.insert(number, holder);
        self.taken.insert(number, number);
    }

    fn next_free(&self) -> Option<u128> {
        let from = |start| self.taken.next_free(start).filter(|&free| self.dynamic.contains(free));
        from(self.next).or_else(|| from(self.dynamic.first))
    }

    fn walk_past(&mut self, number: u128) {
        if self.dynamic.contains(number) {
            self.next = number.saturating_add(1);
        }
    }

    fn refuse_reserved(&self, address: IpAddr) -> Result<(), Invalid> {
        check_address(address, self.subnet)
    }

    fn holder(&self, address: IpAddr) -> Option<String> {
        if address == self.gateway {
            return Some("the gateway".into());
        }
        if let Some((name, _)) = self.auxiliary.iter().find(|&(_, &taken)| taken == address) {
            return Some(format!("the auxiliary address {name}"));
        }
        self.held.get(&number(address)).map(Holder::to_string)
    }

    /// What is kept for services, where sandboxes would get it otherwise.
    fn kept(&self) -> String {
        let Some(band) = self.band.filter(|band| self.dynamic.last < band.first) else {
            return String::new();
        };
        let family = self.dynamic.family;
        format!(", {} to {} kept for services", family.address(band.first), family.address(band.last))
    }

    fn exhausted(&self, network: Arc<str>) -> IpamError {
        let holders = || self.held.range(self.dynamic.first..=self.dynamic.last).map(|(_, holder)| holder);
        let names: BTreeSet<&str> = holders().map(|holder| &*holder.name).collect();
        let mut of_nodes: BTreeMap<&str, usize> = BTreeMap::new();
        for node in holders().filter_map(|holder| holder.node.as_deref()) {
            *of_nodes.entry(node).or_default() += 1;
        }
        let mut shown = some_of("sandboxes", names.len(), names.iter().map(ToString::to_string));
        if !of_nodes.is_empty() {
            let nodes = of_nodes.iter().map(|(node, count)| format!("{count} on {node}"));
            shown = format!("{shown} ({})", nodes.collect::<Vec<_>>().join(", "));
        }
        IpamError::AddressesExhausted {
            family: self.dynamic.family,
            network,
            part: self.part,
            holders: shown + &self.kept(),
        }
    }
}
