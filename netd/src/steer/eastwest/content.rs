//! What the maps of the programs hold, and the steps from there to what is wanted. At every step a program that looks finds
//! backends of the old or of the new list, or is told to leave the service alone. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netd_sys::bpf::eastwest::{Backend, Entry, Service, Vip};

/// Where connections to a VIP are to go straight to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub network: u32,
    pub affinity: Option<Duration>,
    /// One for each share of the connections; with none, the relay has them.
    pub seats: Vec<Backend>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Put(Entry),
    Remove(Entry),
}

#[derive(Debug, Default)]
pub(super) struct Content {
    services: BTreeMap<Vip, Led>,
    last_slot: u64,
}

#[derive(Debug)]
struct Led {
    service: Service,
    seats: Vec<Backend>,
}

/// Namespaces and the networks they are on, as numbers.
pub(super) type Members = BTreeSet<(u64, u32)>;

impl Content {
    /// From what an earlier process has left, with the steps that clear away what its end has left unfinished.
    pub(super) fn of(entries: &[Entry]) -> (Self, Members, Vec<Step>) {
        let mut content = Self::default();
        let mut members = Members::new();
        let mut seats: BTreeMap<u64, BTreeMap<u32, Backend>> = BTreeMap::new();
        let mut live: BTreeSet<(u64, Backend)> = BTreeSet::new();
        let mut services = Vec::new();
        for entry in entries {
            match *entry {
                Entry::Member { namespace, network } => {
                    members.insert((namespace, network));
                }
                Entry::Service(vip, service) => services.push((vip, service)),
                Entry::Seat { slot, number, backend } => {
                    seats.entry(slot).or_default().insert(number, backend);
                }
                Entry::Live { slot, backend } => {
                    live.insert((slot, backend));
                }
            }
        }
        let mut steps = Vec::new();
        for (vip, service) in services {
            content.last_slot = content.last_slot.max(service.slot);
            let mut placed = seats.remove(&service.slot).unwrap_or_default();
            let rest = placed.split_off(&service.count);
            seats.insert(service.slot, rest);
            let led = Led { service, seats: placed.into_values().collect() };
            let is_whole = led.seats.len() == service.count as usize
                && led.seats.iter().all(|backend| live.contains(&(service.slot, *backend)));
            if is_whole {
                for backend in &led.seats {
                    live.remove(&(service.slot, *backend));
                }
                content.services.insert(vip, led);
            } else {
                steps.push(Step::Remove(Entry::Service(vip, service)));
                let kept = (0..).zip(led.seats);
                seats.entry(service.slot).or_default().extend(kept);
            }
        }
        for (slot, numbers) in seats {
            content.last_slot = content.last_slot.max(slot);
            let seat = |(number, backend)| Step::Remove(Entry::Seat { slot, number, backend });
            steps.extend(numbers.into_iter().map(seat));
        }
        for (slot, backend) in live {
            content.last_slot = content.last_slot.max(slot);
            steps.push(Step::Remove(Entry::Live { slot, backend }));
        }
        (content, members, steps)
    }

    pub(super) fn vips(&self) -> impl Iterator<Item = Vip> {
        self.services.keys().copied()
    }

    /// Where connections are led to.
    pub(super) fn backends(&self) -> impl Iterator<Item = (Vip, Backend)> {
        let seats = |(vip, led): (&Vip, &'_ Led)| {
            let vip = *vip;
            led.seats.clone().into_iter().map(move |backend| (vip, backend))
        };
        self.services.iter().flat_map(seats)
    }

    /// Has connections to `vip` go where they are wanted, or leaves them to the relay.
    pub(super) fn lead(&mut self, vip: Vip, wanted: Option<Wanted>) -> Vec<Step> {
        match (self.services.remove(&vip), wanted.filter(|wanted| !wanted.seats.is_empty())) {
            (None, None) => Vec::new(),
            (Some(led), None) => {
                let mut steps = vec![Step::Remove(Entry::Service(vip, led.service))];
                steps.extend(unseat(&led, 0));
                steps.extend(dead(&led, &BTreeSet::new()));
                steps
            }
            (before, Some(wanted)) => {
                let before = before.unwrap_or_else(|| {
                    self.last_slot += 1;
                    let service = Service { slot: self.last_slot, network: 0, count: 0, affinity: None };
                    Led { service, seats: Vec::new() }
                });
                let (steps, led) = change(vip, &before, wanted);
                self.services.insert(vip, led);
                steps
            }
        }
    }
}

fn change(vip: Vip, before: &Led, wanted: Wanted) -> (Vec<Step>, Led) {
    let slot = before.service.slot;
    let old: BTreeSet<Backend> = before.seats.iter().copied().collect();
    let new: BTreeSet<Backend> = wanted.seats.iter().copied().collect();
    let seats = arrange(&before.seats, wanted.seats);
    let mut steps: Vec<Step> =
        new.difference(&old).map(|backend| Step::Put(Entry::Live { slot, backend: *backend })).collect();
    for ((number, backend), at) in (0..).zip(&seats).zip(0..) {
        if before.seats.get(at) != Some(backend) {
            steps.push(Step::Put(Entry::Seat { slot, number, backend: *backend }));
        }
    }
    let service =
        Service { slot, network: wanted.network, count: seats.len() as u32, affinity: wanted.affinity };
    if service != before.service {
        steps.push(Step::Put(Entry::Service(vip, service)));
    }
    steps.extend(unseat(before, seats.len()));
    steps.extend(dead(before, &new));
    (steps, Led { service, seats })
}

/// Takes away the seats from `first` on.
fn unseat(led: &Led, first: usize) -> impl Iterator<Item = Step> {
    let slot = led.service.slot;
    let seats = (0..).zip(&led.seats).skip(first);
    seats.map(move |(number, backend)| Step::Remove(Entry::Seat { slot, number, backend: *backend }))
}

/// What is not among these is not there any more.
fn dead(led: &Led, left: &BTreeSet<Backend>) -> impl Iterator<Item = Step> {
    let slot = led.service.slot;
    let all: BTreeSet<Backend> = led.seats.iter().copied().collect();
    let gone: Vec<Backend> = all.difference(left).copied().collect();
    gone.into_iter().map(move |backend| Step::Remove(Entry::Live { slot, backend }))
}

/// `wanted` in an order that moves as few as possible of those that are seated.
fn arrange(before: &[Backend], wanted: Vec<Backend>) -> Vec<Backend> {
    let mut missing: BTreeMap<Backend, usize> = BTreeMap::new();
    for backend in wanted {
        *missing.entry(backend).or_default() += 1;
    }
    let mut seats: Vec<Option<Backend>> = Vec::with_capacity(before.len());
    for backend in before {
        let stays = missing.get_mut(backend).filter(|shares| **shares > 0).map(|shares| *shares -= 1);
        seats.push(stays.map(|()| *backend));
    }
    let mut new = missing.into_iter().flat_map(|(backend, shares)| std::iter::repeat_n(backend, shares));
    seats.iter_mut().filter(|seat| seat.is_none()).for_each(|seat| *seat = new.next());
    seats.extend(new.map(Some));
    // What is still empty is filled from the end.
    let mut at = 0;
    while at < seats.len() {
        if seats[at].is_none() {
            seats.swap_remove(at);
        } else {
            at += 1;
        }
    }
    seats.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
