//! Steering in force: which way is used, and which ports are led. Opened when the first port wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use netd_api::ApiError;
use netd_proxy::table::{Change as Proxy, Listener, ListenerId, Protocol as Carried};
use netd_sys::bpf::{CAPACITY, SkLookup, Steered, Transport};
use netd_sys::nft::{Nft, Table};
use netd_sys::{KernelError, socket};

use super::answered::Answered;
use super::funnel::{KINDS, Kind};
use super::holder::{Holder, Taken, taken};
use super::rules::{self, Place};
use crate::config::SteerBy;
use crate::error::{Chain, Result};
use crate::model::Protocol;
use crate::tables::Change;

#[derive(Debug)]
pub(crate) struct Steering {
    by: SteerBy,
    /// Programs whose sockets are passed by.
    reservations: Vec<String>,
    /// Addresses of services: nobody answers there but who is led to.
    vips: BTreeSet<IpAddr>,
    /// Listeners behind funnels.
    answered: Answered,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    way: Way,
    places: Vec<Place>,
    ports: BTreeMap<ListenerId, Steered>,
}

#[derive(Debug)]
enum Way {
    SkLookup(SkLookup),
    /// And why not the other.
    Tproxy(String),
}

/// Ports to be led from now on, and no longer.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    pub(super) put: Vec<Steered>,
    pub(super) removed: Vec<Steered>,
}

/// A funnel's id and its sockets.
pub(crate) type Sockets = (netd_proxy::table::FunnelId, Vec<OwnedFd>);

impl Steering {
    pub(crate) fn new(by: SteerBy, reservations: Vec<String>) -> Self {
        Self { by, reservations, vips: BTreeSet::new(), answered: Answered::default(), active: None }
    }

    /// Those of the places that somebody has, reservations apart.
    pub(crate) fn taken(
        &self,
        protocol: Protocol,
        places: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<Taken>, KernelError> {
        let mut taken = taken(protocol, places, &self.reservations)?;
        // A funnel's own port can be steered like any other: nobody is meant to come to it straight.
        let funnels: Vec<u16> = self
            .active
            .iter()
            .flat_map(|active| &active.places)
            .filter(|(kind, _)| kind.protocol == protocol)
            .map(|(_, at)| at.port())
            .collect();
        let is_ours =
            |holder: &Holder| holder.pid == std::process::id() || holder.program == "netd-dataplane";
        taken.retain(|taken| {
            let by_us = !taken.by.is_empty() && taken.by.iter().all(is_ours);
            !(by_us && funnels.contains(&taken.at.port()))
        });
        Ok(taken)
    }

    /// Whether the listener's port is led to its funnel.
    pub(crate) fn leads(&self, listener: &str) -> bool {
        self.active.as_ref().is_some_and(|active| active.ports.contains_key(listener))
    }

    /// Whether it is led nowhere because nobody could answer.
    pub(crate) fn refuses(&self, listener: &str) -> bool {
        matches!(self.answered.place(listener), Some((_, false)))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.active.is_some()
    }

    /// Makes ready to steer. `held` are the sockets of a funnel that are there already, by its id; what is missing is
    /// opened and returned.
    pub(crate) fn open<'a>(
        &mut self,
        workers: usize,
        held: impl Fn(&str) -> Option<BorrowedFd<'a>>,
    ) -> Result<Vec<Sockets>> {
        let mut made = Vec::new();
        let mut places = Vec::with_capacity(KINDS.len());
        for kind in KINDS {
            if let Some(socket) = held(&kind.id()) {
                places.push((kind, address(socket)?));
                continue;
            }
            match kind.open(workers) {
                Ok(sockets) => {
                    if let Some(first) = sockets.first() {
                        places.push((kind.clone(), address(first)?));
                        made.push((kind.id(), sockets));
                    }
                }
                // The host is without IPv6: so are its ports.
                Err(error) if !kind.is_ipv4 => {
                    tracing::info!(error = %Chain(&error), "steering IPv4 alone");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let way = {
            let new = |kind: &Kind| made.iter().find(|(id, _)| *id == kind.id());
            let first = |kind: &Kind| {
                new(kind).and_then(|(_, sockets)| sockets.first()).map(std::os::fd::AsFd::as_fd)
            };
            let sockets: Vec<(Transport, BorrowedFd<'_>)> = places
                .iter()
                .filter_map(|(kind, _)| Some((kind.transport(), first(kind).or_else(|| held(&kind.id()))?)))
                .collect();
            self.choose(&sockets)?
        };
        if let Way::SkLookup(lookup) = &way {
            every_port(&self.vips).try_for_each(|every| lookup.refuse(every))?;
        }
        self.active = Some(Active { way, places, ports: BTreeMap::new() });
        Ok(made)
    }

    /// At the addresses of services nobody answers but listeners that are led there: no program of the host, no published
    /// port. These are none any more, and those are from now on.
    pub(crate) fn change_vips(
        &mut self,
        gone: &BTreeSet<IpAddr>,
        new: &BTreeSet<IpAddr>,
    ) -> Result<(), KernelError> {
        for vip in gone {
            self.vips.remove(vip);
        }
        self.vips.extend(new);
        let Some(Active { way: Way::SkLookup(lookup), ports, .. }) = &self.active else { return Ok(()) };
        let is_concerned =
            |port: &&Steered| port.port == 0 && (gone.contains(&port.address) || new.contains(&port.address));
        let led: BTreeSet<&Steered> = ports.values().filter(is_concerned).collect();
        every_port(&(new - gone))
            .filter(|every| !led.contains(every))
            .try_for_each(|every| lookup.refuse(every))?;
        every_port(&(gone - new))
            .filter(|every| !led.contains(every))
            .try_for_each(|every| lookup.remove(every))
    }

    pub(crate) fn has_vips(&self) -> bool {
        !self.vips.is_empty()
    }

    pub(crate) fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains(&address)
    }

    /// Every port of a service's address is refused while it is not led.
    fn release(&self, lookup: &SkLookup, port: Steered) -> Result<(), KernelError> {
        if port.port == 0 && self.vips.contains(&port.address) {
            lookup.refuse(port)
        } else {
            lookup.remove(port)
        }
    }

    fn choose(&self, sockets: &[(Transport, BorrowedFd<'_>)]) -> Result<Way> {
        if self.by == SteerBy::Tproxy {
            return Ok(Way::Tproxy("publish.steer asks for it".into()));
        }
        match SkLookup::attach(sockets) {
            Ok(lookup) => Ok(Way::SkLookup(lookup)),
            Err(error) if self.by == SteerBy::Auto => {
                let why = Chain(&error).to_string();
                tracing::warn!(why, "steering published ports by tproxy: sk_lookup cannot be used");
                Ok(Way::Tproxy(why))
            }
            Err(error) => Err(ApiError::kernel(Chain(&error).to_string())
                .remedy("set publish.steer to auto or tproxy")
                .into()),
        }
    }

    /// Nothing is led any more.
    pub(crate) fn close(&mut self) {
        self.active = None;
    }

    /// What the data plane has to know before the listeners.
    pub(crate) fn funnels(&self) -> impl Iterator<Item = Change> {
        let places = self.active.iter().flat_map(|active| &active.places);
        places.map(|(kind, _)| Change::Proxy(Proxy::PutFunnel(kind.funnel())))
    }

    /// It is in force as long as somebody holds this.
    pub(crate) fn link(&self) -> Option<BorrowedFd<'_>> {
        match &self.active.as_ref()?.way {
            Way::SkLookup(lookup) => Some(lookup.link()),
            Way::Tproxy(_) => None,
        }
    }

    /// Whether so many ports more can be led, each address counted.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        self.active.as_ref().map_or(0, |active| active.ports.len()) + more <= CAPACITY
    }

    /// Takes in what changes for the data plane; with `full`, what is not put is not led any more. Nor is what nobody can
    /// answer for: who is let in while somebody leaves who was the last has to be served, so the listener stays.
    pub(crate) fn follow(&mut self, changes: &[Change], full: bool) -> Moves {
        let mut moves = Moves::default();
        let touched = self.answered.follow(changes, full, |listener| listener.funnel.is_some());
        let Some(active) = &mut self.active else { return moves };
        let before = if full { std::mem::take(&mut active.ports) } else { BTreeMap::new() };
        for id in touched {
            match self.answered.place(&id) {
                Some((port, true)) => {
                    if active.ports.insert(id, port).is_none() {
                        moves.put.push(port);
                    }
                }
                Some((_, false)) | None => moves.removed.extend(active.ports.remove(&id)),
            }
        }
        let gone = before.into_iter().filter(|(id, _)| !active.ports.contains_key(id));
        moves.removed.extend(gone.map(|(_, port)| port));
        moves
    }

    /// Leads what `follow` has taken in. After an error the host's table has to be written whole.
    pub(crate) fn carry_out(&self, moves: &Moves, nft: &mut Nft) -> Result<(), KernelError> {
        let Some(active) = &self.active else { return Ok(()) };
        match &active.way {
            Way::SkLookup(lookup) => {
                moves.put.iter().try_for_each(|port| lookup.put(*port))?;
                moves.removed.iter().try_for_each(|port| self.release(lookup, *port))
            }
            Way::Tproxy(_) => {
                for (set, elements) in rules::by_set(&moves.put) {
                    nft.add_elements(crate::firewall::TABLE, &set, &elements)?;
                }
                for (set, elements) in rules::by_set(&moves.removed) {
                    nft.del_elements(crate::firewall::TABLE, &set, &elements)?;
                }
                Ok(())
            }
        }
    }

    /// Adds what steering needs to the host's table.
    pub(crate) fn render(&self, table: &mut Table) {
        let Some(active) = &self.active else { return };
        table.chains.push(rules::answers());
        if matches!(active.way, Way::Tproxy(_)) {
            table.sets.extend(rules::sets(&active.places, active.ports.values()));
            table.chains.push(rules::tproxy(&active.places));
            table.chains.extend(rules::unserved(&active.places));
        }
    }

    /// Whether tproxy is used, or would be.
    pub(crate) fn is_by_tproxy(&self) -> bool {
        match (&self.active, self.by) {
            (Some(active), _) => matches!(active.way, Way::Tproxy(_)),
            (None, SteerBy::Auto) => SkLookup::probe().is_err(),
            (None, by) => by == SteerBy::Tproxy,
        }
    }

    /// Which way is used or would be, and why: for people.
    pub(crate) fn describe(&self) -> (bool, String) {
        let ports = "ports beside a runtime's reservation sockets";
        match (&self.active, self.by) {
            (Some(Active { way: Way::SkLookup(_), .. }), _) => (true, format!("{ports}: by sk_lookup")),
            (Some(Active { way: Way::Tproxy(why), .. }), _) => (true, format!("{ports}: by tproxy ({why})")),
            (None, SteerBy::Tproxy) => (true, format!("{ports}: by tproxy (publish.steer asks for it)")),
            (None, by) => match SkLookup::probe() {
                Ok(()) => (true, format!("{ports}: by sk_lookup")),
                Err(error) => {
                    (by == SteerBy::Auto, format!("{ports}: sk_lookup cannot be used ({})", Chain(&error)))
                }
            },
        }
    }
}

impl Moves {
    pub(crate) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }
}

fn every_port(vips: &BTreeSet<IpAddr>) -> impl Iterator<Item = Steered> {
    let carried = [Transport::Tcp, Transport::Udp];
    vips.iter().flat_map(move |&address| carried.map(|transport| Steered { transport, address, port: 0 }))
}

fn address(socket: impl std::os::fd::AsFd) -> Result<SocketAddr> {
    socket::local_address(socket)
        .map_err(|error| ApiError::kernel(format!("cannot read a funnel's address: {error}")).into())
}

pub(super) fn place(listener: &Listener) -> Steered {
    let transport = match listener.protocol {
        Carried::Tcp => Transport::Tcp,
        Carried::Udp => Transport::Udp,
    };
    Steered { transport, address: listener.address.ip(), port: listener.address.port() }
}
