//! Services whose clients go straight to a backend (`--east-west connect`): what the BPF programs on the root cgroup are told.
//! Follows the changes that go to the data plane, since the backends are the same ones, and the records, which say who
//! is on which network.
//!
//! It is a short cut and nothing else: what is not led here (a client of another namespace, a service without usable
//! backends, a kernel without the programs) is served by the relay.

mod closing;
mod content;
mod gone;
mod members;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, LazyLock};

use netd_proxy::table::{
    Backend as Proxied, Change as Proxy, Listener, ListenerId, Service as Balanced, ServiceId,
};
use netd_sys::KernelError;
use netd_sys::bpf::eastwest::{EastWest as Programs, Vip, cgroup_root};

use crate::error::Chain;
use crate::model::{self, Id, Model, Service};
use crate::tables::Change;
use closing::Closer;
use content::{Content, Step};
use members::Namespaces;

/// Of the descriptors that keep the programs in force. Those of another build are not taken over.
pub(crate) static KEY: LazyLock<Arc<str>> =
    LazyLock::new(|| format!("eastwest/{:x}", Programs::build()).into());

#[derive(Debug, Default)]
pub(crate) struct EastWest {
    programs: State,
    /// Services of the data plane that are services of ours.
    known: BTreeMap<ServiceId, Known>,
    listeners: BTreeMap<ListenerId, ServiceId>,
    /// Services that want it.
    wishing: BTreeSet<Id>,
    led: BTreeMap<ListenerId, (Vip, Id)>,
    /// Networks of services that are led, and of how many listeners.
    served: BTreeMap<Id, usize>,
    content: Content,
    namespaces: Namespaces,
    closer: Option<Closer>,
}

/// A service as the data plane has it.
#[derive(Debug, Default)]
struct Known {
    balanced: Option<Balanced>,
    listeners: BTreeMap<ListenerId, Listener>,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody has wanted them so far.
    #[default]
    Idle,
    InForce(Programs),
    /// And why.
    Impossible(String),
}

impl EastWest {
    /// Takes in what changes for the data plane and in the records; with `full`, these are all tables that there are.
    pub(crate) fn follow(&mut self, tables: &[Change], records: &[model::Change], model: &Model, full: bool) {
        let before = self.backends(tables, model, full);
        let steps = self.steps(tables, records, model, full);
        self.carry_out(steps);
        self.end_what_is_gone(before, model);
        // Otherwise they stay, with nothing to do: the data plane lets go of what it keeps with a full set alone.
        if full && self.wishing.is_empty() && self.is_in_force() {
            self.programs = State::Idle;
            (self.content, self.namespaces) = (Content::default(), Namespaces::default());
            self.closer = None;
        }
    }

    /// Who answers before these tables, for the services that they are about.
    fn backends(&self, tables: &[Change], model: &Model, full: bool) -> BTreeMap<ServiceId, Vec<Proxied>> {
        if !self.is_in_force() {
            return BTreeMap::new();
        }
        let touched = tables.iter().filter_map(|change| match change {
            Change::Proxy(Proxy::PutService(service)) => self.known.get(&service.id),
            _ => None,
        });
        let mut before: BTreeMap<ServiceId, Vec<Proxied>> = touched
            .filter_map(|known| known.balanced.as_ref())
            .map(|service| (Arc::clone(&service.id), service.backends.clone()))
            .collect();
        if full {
            // An earlier control plane has left no more than where it has led to.
            let services = model.services.values().filter(|service| wishes(service));
            let vips: BTreeMap<IpAddr, ServiceId> = services
                .flat_map(|service| gone::vips(service).into_iter().map(|vip| (vip, id_of(service))))
                .collect();
            for (vip, backend) in self.content.backends() {
                if let Some(service) = vips.get(&vip.address) {
                    before.entry(Arc::clone(service)).or_default().push(gone::led_to(backend));
                }
            }
        }
        before
    }

    fn end_what_is_gone(&mut self, before: BTreeMap<ServiceId, Vec<Proxied>>, model: &Model) {
        let State::InForce(programs) = &self.programs else { return };
        for (id, before) in before {
            let Some(after) = self.known.get(&id).and_then(|known| known.balanced.as_ref()) else { continue };
            let Some(service) = id.strip_prefix(SERVICE).and_then(|id| model.services.get(id)) else {
                continue;
            };
            let is_live = |mesh| model.nodes.values().any(|node| node.mesh == mesh);
            let gone = gone::gone(service, &before, &after.backends, is_live);
            if gone.is_empty() {
                continue;
            }
            if self.closer.is_none() {
                let started = programs.connections().and_then(Closer::start);
                self.closer = started
                    .inspect_err(|error| {
                        tracing::warn!(error = %Chain(error), "connections to backends that are gone stay open");
                    })
                    .ok();
            }
            if let Some(closer) = &self.closer {
                closer.end(gone, closing::clients(service, model));
            }
        }
    }

    fn steps(
        &mut self,
        tables: &[Change],
        records: &[model::Change],
        model: &Model,
        full: bool,
    ) -> Vec<Step> {
        let touched = self.note(tables, records, model, full);
        let mut steps = Vec::new();
        let mut networks = BTreeSet::new();
        for listener in touched {
            steps.extend(self.lead(&listener, model, &mut networks));
        }
        if full {
            networks.extend(self.served.keys().cloned());
            let wanted: BTreeSet<Vip> = self.led.values().map(|(vip, _)| *vip).collect();
            let surplus: Vec<Vip> = self.content.vips().filter(|vip| !wanted.contains(vip)).collect();
            steps.extend(surplus.into_iter().flat_map(|vip| self.content.lead(vip, None)));
        }
        let is_served = |network: &Id| self.served.contains_key(network);
        // Members before the services that they may use; where a network is not served any more, nothing is lost.
        let mut all = self.namespaces.follow(is_served, &networks, records, model, full);
        all.extend(steps);
        all
    }

    /// The listeners that may have to be led elsewhere now.
    fn note(
        &mut self,
        tables: &[Change],
        records: &[model::Change],
        model: &Model,
        full: bool,
    ) -> BTreeSet<ListenerId> {
        let mut touched = BTreeSet::new();
        if full {
            touched.extend(self.led.keys().cloned());
            self.known.clear();
            self.listeners.clear();
            let wishing = model.services.values().filter(|service| wishes(service));
            self.wishing = wishing.map(|service| Arc::clone(&service.id)).collect();
        }
        let mut services: BTreeSet<ServiceId> = BTreeSet::new();
        for change in tables {
            let Change::Proxy(change) = change else { continue };
            match change {
                Proxy::PutService(service) if service.id.starts_with(SERVICE) => {
                    self.known.entry(Arc::clone(&service.id)).or_default().balanced = Some(service.clone());
                    services.insert(Arc::clone(&service.id));
                }
                Proxy::DropService { service } => drop(self.known.remove(service)),
                Proxy::PutListener(listener) => {
                    touched.extend(self.drop_listener(&listener.id));
                    touched.extend(self.put_listener(listener));
                }
                Proxy::DropListener { listener } => touched.extend(self.drop_listener(listener)),
                _ => {}
            }
        }
        for record in records {
            if let model::Change::Service { before, after } = record {
                services.extend(before.iter().chain(after).map(|service| id_of(service)));
                if let Some(before) = before {
                    self.wishing.remove(&before.id);
                }
                let wishing = after.iter().filter(|service| wishes(service));
                self.wishing.extend(wishing.map(|service| Arc::clone(&service.id)));
            }
        }
        let known = services.iter().filter_map(|service| self.known.get(service));
        touched.extend(known.flat_map(|known| known.listeners.keys().cloned()));
        touched
    }

    fn put_listener(&mut self, listener: &Listener) -> Option<ListenerId> {
        let service = Some(&listener.service).filter(|service| service.starts_with(SERVICE))?;
        let known = self.known.entry(Arc::clone(service)).or_default();
        known.listeners.insert(Arc::clone(&listener.id), listener.clone());
        self.listeners.insert(Arc::clone(&listener.id), Arc::clone(service));
        Some(Arc::clone(&listener.id))
    }

    fn drop_listener(&mut self, id: &ListenerId) -> Option<ListenerId> {
        let service = self.listeners.remove(id)?;
        if let Some(known) = self.known.get_mut(&service) {
            known.listeners.remove(id);
        }
        Some(Arc::clone(id))
    }

    /// The steps for one listener. Networks that are served for the first or the last time are added to `networks`.
    fn lead(&mut self, id: &ListenerId, model: &Model, networks: &mut BTreeSet<Id>) -> Vec<Step> {
        let wanted = self.wanted(id, model).filter(|(_, _, wanted)| !wanted.seats.is_empty());
        let before = self.led.remove(id);
        if let Some((_, network)) = &before {
            let listeners = self.served.entry(Arc::clone(network)).or_default();
            *listeners = listeners.saturating_sub(1);
            if *listeners == 0 {
                self.served.remove(network);
                networks.insert(Arc::clone(network));
            }
        }
        let Some((vip, network, wanted)) = wanted else {
            return before.map_or_else(Vec::new, |(vip, _)| self.content.lead(vip, None));
        };
        let listeners = self.served.entry(Arc::clone(&network)).or_default();
        *listeners += 1;
        if *listeners == 1 {
            networks.insert(Arc::clone(&network));
        }
        self.led.insert(Arc::clone(id), (vip, network));
        self.content.lead(vip, Some(wanted))
    }

    fn wanted(&mut self, id: &str, model: &Model) -> Option<(Vip, Id, content::Wanted)> {
        let known = self.known.get(self.listeners.get(id)?)?;
        let (listener, balanced) = (known.listeners.get(id)?, known.balanced.as_ref()?);
        let service = model.services.get(balanced.id.strip_prefix(SERVICE)?)?;
        let vip = wanted::vip(listener, service)?;
        let network = model.networks.get(&service.network)?;
        let number = self.namespaces.number(&network.id);
        let wanted = wanted::wanted(listener, balanced, service, (network, number))?;
        Some((vip, Arc::clone(&network.id), wanted))
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        if matches!(self.programs, State::Idle) && !steps.is_empty() {
            let attached = cgroup_root().and_then(|root| Programs::attach(root.as_fd()));
            self.programs = match attached {
                Ok(programs) => State::InForce(programs),
                Err(error) => {
                    let why = Chain(&error).to_string();
                    tracing::warn!(why, "relaying what services want to have gone straight");
                    State::Impossible(why)
                }
            };
        }
        let State::InForce(programs) = &self.programs else { return };
        for step in steps {
            if let Err(error) = take(programs, step) {
                tracing::error!(error = %Chain(&error), "some connections to services are relayed");
            }
        }
    }

    /// Goes on with programs that another process has put in force.
    pub(crate) fn adopt(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), KernelError> {
        let programs = Programs::adopt(descriptors)?;
        let (content, members, rest) = Content::of(&programs.entries()?);
        rest.into_iter().try_for_each(|step| take(&programs, step))?;
        self.namespaces = Namespaces::found(members);
        self.content = content;
        self.programs = State::InForce(programs);
        Ok(())
    }

    pub(crate) fn is_in_force(&self) -> bool {
        matches!(self.programs, State::InForce(_))
    }

    /// They are in force as long as somebody holds these.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let programs = if let State::InForce(programs) = &self.programs { Some(programs) } else { None };
        programs.into_iter().flat_map(Programs::descriptors)
    }

    /// Whether they are in force or could be, and why not: for people.
    pub(crate) fn describe(&self) -> (bool, String) {
        let what = "connections of sandboxes to services";
        match &self.programs {
            State::InForce(_) => (true, format!("{what}: straight to a backend where the service says so")),
            State::Impossible(why) => (false, format!("{what}: relayed ({why})")),
            State::Idle => match cgroup_root().and_then(|_| Programs::probe()) {
                Ok(()) => (true, format!("{what}: could go straight to a backend (`--east-west connect`)")),
                Err(error) => (false, format!("{what}: relayed ({})", Chain(&error))),
            },
        }
    }
}

/// Ids of the data plane's services that are services of ours begin with this.
const SERVICE: &str = "service/";

fn id_of(service: &Service) -> ServiceId {
    format!("{SERVICE}{}", service.id).into()
}

fn wishes(service: &Service) -> bool {
    service.east_west == model::EastWest::Connect
}

fn take(programs: &Programs, step: Step) -> Result<(), KernelError> {
    match step {
        Step::Put(entry) => programs.put(entry),
        Step::Remove(entry) => programs.remove(entry),
    }
}

#[cfg(test)]
mod tests;
