//! The thread that asks: whom is due, a bounded number at once, each with its own time; and tells of every verdict that
//! changes. It sleeps in one wait until something is due, comes, or is ordered.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netd_sys::poll::{Events, Poller, Waker};
use slab::Slab;

use super::probe::{Attempt, Progress};
use super::verdict::Verdict;
use super::{Found, Health, Unwell, Watched};
use crate::policy::mix;
use crate::table::{BackendId, Check, ServiceId};

/// Questions under way at once.
const AT_ONCE: usize = 256;
/// No backend is asked more often, whatever its check says.
const SHORTEST: Duration = Duration::from_millis(10);
/// A check or a pause longer than this is as good as none.
const LONGEST: Duration = Duration::from_secs(86_400);
/// Before the first question; many that come at once are spread over it.
const AT_FIRST: Duration = Duration::from_millis(20);
/// Up to this part of its interval a question comes earlier, so that not all are asked at the same moment; none later.
const EARLIER: f64 = 0.1;
const EVENTS: usize = 128;
const WAKER: u64 = u64::MAX;

/// What the control side wants of the prober.
enum Order {
    /// From now on these backends of the service are asked, and no others of it.
    Watch {
        service: ServiceId,
        check: Option<Check>,
        backends: Vec<Watched>,
    },
    Stop,
}

/// The control side's way to the prober.
#[derive(Clone)]
pub(crate) struct Orders {
    sender: Sender<Order>,
    waker: Arc<Waker>,
}

impl Orders {
    pub(crate) fn watch(&self, service: &ServiceId, check: Option<&Check>, backends: Vec<Watched>) {
        self.give(Order::Watch { service: Arc::clone(service), check: check.cloned(), backends });
    }

    pub(crate) fn stop(&self) {
        self.give(Order::Stop);
    }

    fn give(&self, order: Order) {
        // One that has ended asks nobody any more.
        let _ = self.sender.send(order);
        self.waker.wake();
    }
}

/// A backend that is asked again and again.
struct Entry {
    service: ServiceId,
    watched: Watched,
    check: Arc<Check>,
    verdict: Verdict,
    attempt: Option<Attempt>,
    began: Instant,
    /// When its question is over, or the next is due. None: it waits for others to end.
    timer: Option<Instant>,
    /// Tells entries that had the same place apart.
    serial: u32,
}

pub(crate) struct Prober {
    poller: Poller,
    orders: Receiver<Order>,
    entries: Slab<Entry>,
    by_service: HashMap<ServiceId, HashMap<BackendId, usize>>,
    timers: BTreeSet<(Instant, usize)>,
    /// Those that were due when as many as may be were under way.
    waiting: VecDeque<(usize, u32)>,
    running: usize,
    serial: u32,
    random: u64,
}

impl Prober {
    pub(crate) fn new(seed: u64) -> io::Result<(Self, Orders)> {
        let poller = Poller::new()?;
        let waker = Arc::new(Waker::new(&poller, WAKER)?);
        let (sender, orders) = mpsc::channel();
        let prober = Self {
            poller,
            orders,
            entries: Slab::new(),
            by_service: HashMap::new(),
            timers: BTreeSet::new(),
            waiting: VecDeque::new(),
            running: 0,
            serial: 0,
            random: seed,
        };
        Ok((prober, Orders { sender, waker }))
    }

    /// `found` is called on the prober's thread for every verdict that changes.
    pub(crate) fn start(self, found: impl Fn(Found) + Send + 'static) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("health-checks".into()).spawn(move || {
            if let Err(error) = self.run(&found) {
                tracing::error!(%error, "health checks have ended: backends stay as they were found last");
            }
        })
    }

    fn run(mut self, found: &dyn Fn(Found)) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let due = self.timers.first().map(|(at, _)| at.saturating_duration_since(Instant::now()));
            self.poller.wait(&mut events, due)?;
            let now = Instant::now();
            for event in events.iter().filter(|event| event.token != WAKER) {
                self.happened(event.token, event.writable(), now, found);
            }
            if !self.obey(now) {
                return Ok(());
            }
            self.timers(now, found);
        }
    }

    /// False: it is to end.
    fn obey(&mut self, now: Instant) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Watch { service, check, backends }) => {
                    self.watch(&service, check.map(Arc::new), backends, now);
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn watch(
        &mut self,
        service: &ServiceId,
        check: Option<Arc<Check>>,
        backends: Vec<Watched>,
        now: Instant,
    ) {
        let mut before = self.by_service.remove(service).unwrap_or_default();
        let mut after = HashMap::new();
        if let Some(check) = check {
            for watched in backends {
                let id = Arc::clone(&watched.backend);
                let same = before.remove(&id);
                after.insert(id, self.ask(same, service, watched, &check, now));
            }
        }
        before.into_values().for_each(|index| self.forget(index));
        if !after.is_empty() {
            self.by_service.insert(Arc::clone(service), after);
        }
        self.let_in(now);
    }

    /// `same`: where it is asked already. The same question goes on, in the time that it has now.
    fn ask(
        &mut self,
        same: Option<usize>,
        service: &ServiceId,
        watched: Watched,
        check: &Arc<Check>,
        now: Instant,
    ) -> usize {
        match same {
            Some(index) if self.entries[index].watched.target == watched.target => {
                self.entries[index].check = Arc::clone(check);
                self.hurry(index, now);
                index
            }
            other => {
                other.into_iter().for_each(|index| self.forget(index));
                self.add(service, watched, check, now)
            }
        }
    }

    fn add(&mut self, service: &ServiceId, watched: Watched, check: &Arc<Check>, now: Instant) -> usize {
        self.serial = self.serial.wrapping_add(1);
        let at = now + AT_FIRST.mul_f64(self.fraction());
        let index = self.entries.insert(Entry {
            service: Arc::clone(service),
            watched,
            check: Arc::clone(check),
            verdict: Verdict::default(),
            attempt: None,
            began: now,
            timer: Some(at),
            serial: self.serial,
        });
        self.timers.insert((at, index));
        index
    }

    /// Asks no later than the check, which may be another one now, says.
    fn hurry(&mut self, index: usize, now: Instant) {
        let entry = &self.entries[index];
        let (Some(timer), None) = (entry.timer, &entry.attempt) else { return };
        let due = (entry.began + interval(&entry.check)).max(now);
        if due < timer {
            self.set(index, due);
        }
    }

    fn forget(&mut self, index: usize) {
        let entry = self.entries.remove(index);
        self.running -= usize::from(entry.attempt.is_some());
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, index));
        }
    }

    fn set(&mut self, index: usize, at: Instant) {
        if let Some(before) = self.entries[index].timer.replace(at) {
            self.timers.remove(&(before, index));
        }
        self.timers.insert((at, index));
    }

    fn timers(&mut self, now: Instant, found: &dyn Fn(Found)) {
        while let Some((_, index)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            let entry = &mut self.entries[index];
            entry.timer = None;
            if entry.attempt.is_some() {
                self.ended(index, Progress::Bad(Unwell::Late), now, found);
            } else if self.running >= AT_ONCE {
                self.waiting.push_back((index, entry.serial));
            } else {
                self.begin(index, now, found);
            }
        }
    }

    fn begin(&mut self, index: usize, now: Instant, found: &dyn Fn(Found)) {
        let entry = &mut self.entries[index];
        entry.began = now;
        let token = u64::from(entry.serial) << 32 | index as u64;
        match Attempt::begin(&entry.watched.target, &self.poller, token) {
            Ok(attempt) => {
                entry.attempt = Some(attempt);
                self.running += 1;
                let until = now + entry.check.timeout.clamp(SHORTEST, LONGEST);
                self.set(index, until);
            }
            Err(outcome) => self.ended(index, outcome, now, found),
        }
    }

    fn happened(&mut self, token: u64, writable: bool, now: Instant, found: &dyn Fn(Found)) {
        // The halves of the token, as begin() joined them.
        let (index, serial) = ((token & u64::from(u32::MAX)) as usize, (token >> 32) as u32);
        let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.serial == serial) else { return };
        let Some(attempt) = &mut entry.attempt else { return };
        match attempt.go_on(writable, &self.poller, token) {
            Progress::Pending => {}
            outcome => self.ended(index, outcome, now, found),
        }
    }

    fn ended(&mut self, index: usize, outcome: Progress, now: Instant, found: &dyn Fn(Found)) {
        let share = self.fraction() * EARLIER;
        let entry = &mut self.entries[index];
        if entry.attempt.take().is_some() {
            self.running -= 1;
        }
        let answer = match outcome {
            Progress::Good => Some(Ok(())),
            Progress::Bad(why) => Some(Err(why)),
            Progress::Pending | Progress::Unasked => None,
        };
        let verdict = answer.filter(|answer| entry.verdict.note(answer.is_ok(), &entry.check).is_some());
        let interval = interval(&entry.check);
        let next = (entry.began + interval - interval.mul_f64(share)).max(now + SHORTEST / 2);
        if let Some(verdict) = verdict {
            let (service, backend) = (Arc::clone(&entry.service), Arc::clone(&entry.watched.backend));
            let target = entry.watched.target.clone();
            let well = verdict.is_ok();
            let why = verdict.err().map(tracing::field::display);
            tracing::info!(service = &*service, backend = &*backend, well, why, "a health check has found");
            found(Found { health: Health { service, backend, verdict }, target });
        }
        self.set(index, next);
        self.let_in(now);
    }

    /// As many of those that wait as there is room for.
    fn let_in(&mut self, now: Instant) {
        for _ in self.running..AT_ONCE {
            let Some((index, serial)) = self.waiting.pop_front() else { return };
            if self.entries.get(index).is_some_and(|entry| entry.serial == serial) {
                self.set(index, now);
            }
        }
    }

    /// Something from 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.random) >> 40) as f64 / f64::from(1u32 << 24)
    }
}

fn interval(check: &Check) -> Duration {
    check.interval.clamp(SHORTEST, LONGEST)
}
