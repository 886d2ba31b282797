//! Which batches are served. A batch has parts that finish on threads of their own, in any order; the batches are
//! reported in the order they were opened, each from the thread that finished the last part that was missing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Told once, with what could not be served. Called under the ledger's lock: it must not block.
pub(crate) type Served = Box<dyn FnOnce(Option<String>) + Send>;

#[derive(Default)]
pub(crate) struct Ledger {
    open: Mutex<Open>,
    served: AtomicU64,
}

#[derive(Default)]
struct Open {
    entries: VecDeque<Entry>,
    next: u64,
}

struct Entry {
    ticket: u64,
    revision: u64,
    parts: usize,
    errors: Vec<String>,
    served: Served,
}

impl Ledger {
    /// Opens a batch of so many parts; each is finished with the ticket returned.
    pub(crate) fn open(&self, revision: u64, parts: usize, served: Served) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = open.next;
        open.next += 1;
        open.entries.push_back(Entry { ticket, revision, parts, errors: Vec::new(), served });
        self.report(&mut open);
        ticket
    }

    /// One part of the batch is served, but for what `error` says.
    pub(crate) fn finish(&self, ticket: u64, error: Option<String>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.entries.iter_mut().find(|entry| entry.ticket == ticket) {
            entry.parts = entry.parts.saturating_sub(1);
            entry.errors.extend(error);
        }
        self.report(&mut open);
    }

    /// The latest revision that was reported.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    fn report(&self, open: &mut Open) {
        while open.entries.front().is_some_and(|entry| entry.parts == 0) {
            let Some(entry) = open.entries.pop_front() else { return };
            self.served.store(entry.revision, Ordering::Relaxed);
            let errors = (!entry.errors.is_empty()).then(|| entry.errors.join("; "));
            (entry.served)(errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn batches_are_reported_in_order_and_with_their_errors() {
        let ledger = Ledger::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let open = |revision, parts| {
            let log = Arc::clone(&log);
            ledger.open(revision, parts, Box::new(move |error| log.lock().unwrap().push((revision, error))))
        };
        let (first, second) = (open(7, 2), open(8, 1));
        let _empty = open(9, 0);
        ledger.finish(second, Some("no socket".into()));
        ledger.finish(first, None);
        assert!(log.lock().unwrap().is_empty());
        assert_eq!(ledger.served(), 0);
        ledger.finish(first, None);
        assert_eq!(*log.lock().unwrap(), [(7, None), (8, Some("no socket".into())), (9, None)]);
        assert_eq!(ledger.served(), 9);
        ledger.finish(first, None);
        assert_eq!(log.lock().unwrap().len(), 3);
    }
}
