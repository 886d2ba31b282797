//! The backends of a service at one moment, never changed once published, and the choice among them: in tiers (this
//! node's own where those go first, all that are ready, those that drain), in each by the service's policy, past those
//! that are ejected. When nobody is left but ejected ones, they are tried all the same; who drains comes last of all. Who
//! leaves is chosen only while nobody else has a state that takes any: by then no more are let in, but for those who were.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::BackendHandle;
use crate::clock::{self, moment};
use crate::policy::{Candidate, Draw, Field, Picker};
use crate::snapshot::{Ask, QUICK};
use crate::table::{Backend, BackendState, Place, Policy, Service};

#[derive(Debug)]
pub(crate) struct Pool {
    /// In the order of their ids: the same on every node.
    all: Box<[Arc<BackendHandle>]>,
    /// In the order in which they are asked.
    tiers: Box<[Tier]>,
    /// In which backends take connections: the best that any is in.
    takes: Option<BackendState>,
    affinity: Option<Duration>,
    /// All connections of a client go to one backend, by its address.
    by_address: bool,
    connect_timeout: Duration,
    pub(crate) udp_idle: Duration,
    pub(crate) leads_back: bool,
}

/// Some of the backends, and how one of them is chosen.
#[derive(Debug)]
struct Tier {
    /// Indexes into the pool.
    members: Box<[u16]>,
    drains: bool,
    picker: Picker,
}

impl Pool {
    /// The pool of `service`, with what lasts of the backends `before` (in the order of their ids).
    pub(crate) fn new(service: &Service, before: &[Arc<BackendHandle>], now: Instant) -> Self {
        let mut wanted: Vec<&Backend> = service.backends.iter().collect();
        wanted.sort_by(|left, right| left.id.cmp(&right.id));
        wanted.dedup_by(|left, right| left.id == right.id);
        wanted.truncate(usize::from(u16::MAX));
        let all: Box<[_]> = wanted
            .iter()
            .map(|backend| BackendHandle::carried_over(backend, before, service.drain, now))
            .collect();
        let takes = [BackendState::Ready, BackendState::Draining, BackendState::Leaving]
            .into_iter()
            .find(|state| all.iter().any(|backend| backend.state == *state));
        let tiers = tiers(service, &all, takes);
        // A choice by a hash of the client is kept by the hash itself, on every node.
        let hashes = matches!(service.policy, Policy::SourceHash | Policy::Maglev);
        Self {
            all,
            tiers,
            takes,
            affinity: service.affinity.filter(|_| !hashes),
            by_address: service.affinity.is_some(),
            connect_timeout: service.connect_timeout,
            udp_idle: service.udp_idle,
            leads_back: service.leads_back,
        }
    }

    pub(crate) fn emptied(&self) -> Self {
        Self {
            all: Box::default(),
            tiers: Box::default(),
            takes: None,
            affinity: self.affinity,
            by_address: self.by_address,
            connect_timeout: self.connect_timeout,
            udp_idle: self.udp_idle,
            leads_back: self.leads_back,
        }
    }

    /// All backends, in the order of their ids.
    pub(crate) fn members(&self) -> &[Arc<BackendHandle>] {
        &self.all
    }

    pub(crate) fn at(&self, index: u16) -> &Arc<BackendHandle> {
        &self.all[usize::from(index)]
    }

    pub(crate) fn index_of(&self, id: &str) -> Option<u16> {
        let at = self.all.binary_search_by(|candidate| (*candidate.id).cmp(id)).ok()?;
        u16::try_from(at).ok()
    }

    /// The backend of that name, whatever its state is.
    pub(crate) fn find(&self, id: &str) -> Option<&Arc<BackendHandle>> {
        self.index_of(id).map(|index| self.at(index))
    }

    /// How long a client is kept to its backend, if that has to be remembered.
    pub(crate) fn affinity(&self) -> Option<Duration> {
        self.affinity
    }

    /// What one attempt at this backend may take.
    pub(crate) fn connect_timeout(&self, backend: &BackendHandle) -> Duration {
        if backend.is_remote() { self.connect_timeout.min(QUICK) } else { self.connect_timeout }
    }

    /// The same while somebody else could be tried: on this node whoever has room accepts at once. On the way to a backend
    /// outside a packet may get lost.
    pub(crate) fn quick_timeout(&self, backend: &BackendHandle) -> Duration {
        if backend.place == Place::Elsewhere { self.connect_timeout } else { self.connect_timeout.min(QUICK) }
    }

    /// In which a connection begins its attempts.
    pub(crate) fn patience(&self, attempts: u32) -> Duration {
        self.connect_timeout.saturating_mul(attempts)
    }

    /// Whether this backend may go on with the flows it has: it is there, at the same addresses, and not unwell.
    pub(crate) fn keeps(&self, backend: &BackendHandle) -> bool {
        self.find(&backend.id)
            .is_some_and(|here| here.is_at_the_place_of(backend) && here.state != BackendState::Failing)
    }

    /// When connections of those that drain are cut.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = Instant> {
        self.all
            .iter()
            .filter(|backend| backend.open() > 0)
            .filter_map(|backend| clock::instant(backend.cut_at()?))
    }

    /// The index of a backend for `ask`; `turn` counts the choices of the service.
    pub(crate) fn choose(&self, ask: &Ask<'_>, turn: u64) -> Option<u16> {
        let draw = Draw { turn, client: ask.client, by_address: self.by_address, random: ask.random };
        // Who drains may be gone in a moment, and the connection with it. Who was ejected may have begun to listen since;
        // if it has not, it refuses and the next is tried.
        let rounds = [(false, true), (false, false), (true, true), (true, false)];
        rounds.into_iter().find_map(|(drains, passes_over)| {
            let mut tiers = self.tiers.iter().filter(|tier| tier.drains == drains);
            tiers.find_map(|tier| self.choose_of(tier, ask, &draw, passes_over))
        })
    }

    fn choose_of(&self, tier: &Tier, ask: &Ask<'_>, draw: &Draw, passes_over: bool) -> Option<u16> {
        let ground = Ground { pool: self, tier, ask, now: moment(ask.now), passes_over };
        loop {
            let index = tier.members[tier.picker.pick(draw, &ground)?];
            let backend = self.at(index);
            // Both of its addresses may be tried.
            let lease = self.connect_timeout(backend).saturating_mul(2);
            if !passes_over || backend.ejection().claim(ask.door, ground.now, lease) {
                return Some(index);
            }
            // Another worker has just begun to ask it again, so now it is out, and the next choice is another one.
            if !ground.is_ejected(index) {
                return None;
            }
        }
    }

    /// Whether the client that belongs to this backend can have it.
    pub(crate) fn would_take(&self, index: u16, ask: &Ask<'_>) -> bool {
        let backend = self.at(index);
        let lease = self.connect_timeout(backend).saturating_mul(2);
        self.is_open(backend)
            && !ask.tried.contains(&index)
            && backend.ejection().claim(ask.door, moment(ask.now), lease)
    }

    /// Whether somebody would be left to ask if `backend` were not.
    pub(crate) fn has_another(&self, backend: &BackendHandle, ask: &Ask<'_>) -> bool {
        let now = moment(ask.now);
        let mut others = (0u16..).zip(&self.all).filter(|(_, other)| other.id != backend.id);
        others.any(|(index, other)| {
            self.is_open(other) && !ask.tried.contains(&index) && !other.ejection().is_out(ask.door, now)
        })
    }

    /// Its state lets it take connections.
    fn is_open(&self, backend: &BackendHandle) -> bool {
        self.takes == Some(backend.state) && !has_left(backend)
    }
}

/// It has begun to leave since this table was made: a search that still holds it would come too late.
fn has_left(backend: &BackendHandle) -> bool {
    backend.state != BackendState::Leaving && backend.leaves()
}

fn tiers(service: &Service, all: &[Arc<BackendHandle>], takes: Option<BackendState>) -> Box<[Tier]> {
    let members = |wanted: &dyn Fn(&BackendHandle) -> bool| -> Box<[u16]> {
        let indexes = all.iter().enumerate().filter(|(_, backend)| wanted(backend));
        indexes.filter_map(|(index, _)| u16::try_from(index).ok()).collect()
    };
    let ready = members(&|backend| backend.state == BackendState::Ready);
    let local = members(&|backend| backend.state == BackendState::Ready && backend.place == Place::Here);
    let last =
        if takes == Some(BackendState::Leaving) { BackendState::Leaving } else { BackendState::Draining };
    let draining = members(&|backend| backend.state == last);
    let local_first = service.prefer_local && local.len() < ready.len();
    // Preparing a large table for those that drain would not pay; it agrees between nodes all the same.
    let while_draining = if service.policy == Policy::Maglev { Policy::SourceHash } else { service.policy };
    [
        (if local_first { local } else { Box::default() }, service.policy, false),
        (ready, service.policy, false),
        (draining, while_draining, true),
    ]
    .into_iter()
    .filter(|(members, ..)| !members.is_empty())
    .map(|(members, policy, drains)| {
        let candidate = |index: &u16| {
            let backend = &all[usize::from(*index)];
            Candidate { key: &backend.id, weight: backend.weight }
        };
        let candidates: Vec<Candidate<'_>> = members.iter().map(candidate).collect();
        Tier { picker: Picker::new(policy, &candidates), members, drains }
    })
    .collect()
}

/// A tier at the moment of a choice.
struct Ground<'a> {
    pool: &'a Pool,
    tier: &'a Tier,
    ask: &'a Ask<'a>,
    now: u64,
    /// Those that are ejected are.
    passes_over: bool,
}

impl Ground<'_> {
    fn is_ejected(&self, index: u16) -> bool {
        self.passes_over && self.pool.at(index).ejection().is_out(self.ask.door, self.now)
    }
}

impl Field for Ground<'_> {
    fn count(&self) -> usize {
        self.tier.members.len()
    }

    fn is_out(&self, index: usize) -> bool {
        let index = self.tier.members[index];
        self.ask.tried.contains(&index) || has_left(self.pool.at(index)) || self.is_ejected(index)
    }

    fn load(&self, index: usize) -> (u32, u16) {
        let backend = self.pool.at(self.tier.members[index]);
        (backend.open(), backend.weight)
    }
}
