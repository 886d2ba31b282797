//! Health on the control side: which verdicts there are, what they make of the tables, who is told of them.
//!
//! A verdict lasts as long as the backend stays at its place and is asked the same, through every table that comes
//! again. Until there is one a backend is what the table says: whoever makes the table knows what was found before
//! this process began, so that one that takes over serves at once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Control, announce};
use crate::health::{self, Found, Health, Target, Unwell, Watched};
use crate::table::{BackendId, BackendState, Service, ServiceId};
use crate::worker::Step;

/// Who wants to hear of verdicts.
pub(super) type Listening = Box<dyn Fn(&Health) + Send>;

type Verdict = Result<(), Unwell>;

/// The verdicts of one service, and the table that they are about.
#[derive(Default)]
pub(super) struct Checked {
    /// As it came. None: without a check.
    table: Option<Service>,
    verdicts: HashMap<BackendId, (Target, Option<Verdict>)>,
}

impl Checked {
    /// Another table. Those that are to be asked for it.
    fn follow(&mut self, service: &Service) -> Vec<Watched> {
        let watched = health::watched(service).map_or_else(Vec::new, |(_, watched)| watched);
        let mut before = std::mem::take(&mut self.verdicts);
        let verdict = |watched: &Watched| {
            let kept = before.remove(&watched.backend).filter(|(target, _)| *target == watched.target);
            (Arc::clone(&watched.backend), (watched.target.clone(), kept.and_then(|(_, verdict)| verdict)))
        };
        self.verdicts = watched.iter().map(verdict).collect();
        self.table = (!watched.is_empty()).then(|| service.clone());
        watched
    }

    pub(super) fn verdict(&self, backend: &str) -> Option<bool> {
        self.verdicts.get(backend).and_then(|(_, verdict)| Some(verdict.as_ref()?.is_ok()))
    }

    /// The table with what was found.
    fn told<'s>(&self, service: &'s Service) -> Cow<'s, Service> {
        if self.verdicts.values().all(|(_, verdict)| verdict.is_none()) {
            return Cow::Borrowed(service);
        }
        let mut service = service.clone();
        for backend in &mut service.backends {
            backend.state = match (backend.state, self.verdict(&backend.id)) {
                (state, None)
                | (state @ BackendState::Draining, Some(true))
                | (state @ BackendState::Leaving, Some(_)) => state,
                (_, Some(true)) => BackendState::Ready,
                (_, Some(false)) => BackendState::Failing,
            };
        }
        Cow::Owned(service)
    }
}

impl Control {
    /// What the table of a service means with what the checks have found, which go on as it says.
    pub(super) fn check_up<'s>(&mut self, service: &'s Service) -> Cow<'s, Service> {
        let checked = self.checked.entry(Arc::clone(&service.id)).or_default();
        let was_asked = checked.table.is_some();
        let watched = checked.follow(service);
        let told = checked.told(service);
        if checked.table.is_none() {
            self.checked.remove(&service.id);
        }
        if was_asked || !watched.is_empty() {
            self.orders.watch(&service.id, service.health.as_ref(), watched);
        }
        told
    }

    pub(super) fn check_no_more(&mut self, service: &ServiceId) {
        if self.checked.remove(service).is_some() {
            self.orders.watch(service, None, Vec::new());
        }
    }

    /// The prober has found something: it counts from now on, and whoever listens is told.
    pub(crate) fn found(&mut self, found: Found, steps: &mut [Vec<Step>]) {
        let Found { health, target } = found;
        let Some(checked) = self.checked.get_mut(&health.service) else { return };
        match checked.verdicts.get_mut(&health.backend) {
            Some((wanted, verdict)) if *wanted == target => *verdict = Some(health.verdict),
            // The table has changed since it was asked.
            _ => return,
        }
        if let (Some(wanted), Some(table)) = (self.services.get(&health.service), &checked.table) {
            wanted.handle.replace(&checked.told(table), Instant::now());
            announce(&wanted.handle, steps);
        }
        if let Some(listening) = &self.listening {
            listening(&health);
        }
    }

    /// Tells `listening` of all verdicts that there are, and of each that changes from now on, in order.
    pub(crate) fn listen(&mut self, listening: impl Fn(&Health) + Send + 'static) {
        for (service, checked) in &self.checked {
            for (backend, (_, verdict)) in &checked.verdicts {
                let Some(verdict) = *verdict else { continue };
                listening(&Health { service: Arc::clone(service), backend: Arc::clone(backend), verdict });
            }
        }
        self.listening = Some(Box::new(listening));
    }

    pub(crate) fn stop_checks(&self) {
        self.orders.stop();
    }
}
