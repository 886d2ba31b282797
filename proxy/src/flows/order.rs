//! Flows in the order of their last activity: doubly linked lists through one vector, so that touching, adding and
//! removing a flow cost the same however long the list is.

use std::time::Instant;

/// The two ends of one list, and when its oldest flow is to be looked at.
#[derive(Default)]
pub(crate) struct Order {
    first: Option<u32>,
    last: Option<u32>,
    pub(crate) wake: Option<Instant>,
}

/// The neighbours of every flow in the one list it is in.
#[derive(Default)]
pub(crate) struct Links(Vec<Link>);

#[derive(Clone, Copy, Default)]
struct Link {
    before: Option<u32>,
    behind: Option<u32>,
}

impl Order {
    pub(crate) fn first(&self) -> Option<u32> {
        self.first
    }

    pub(crate) fn last(&self) -> Option<u32> {
        self.last
    }
}

impl Links {
    pub(crate) fn append(&mut self, order: &mut Order, id: u32) {
        let place = id as usize;
        if place >= self.0.len() {
            self.0.resize(place + 1, Link::default());
        }
        self.0[place] = Link { before: order.last, behind: None };
        match order.last {
            Some(last) => self.0[last as usize].behind = Some(id),
            None => order.first = Some(id),
        }
        order.last = Some(id);
    }

    /// Takes `id`, which is in `order`, out of it.
    pub(crate) fn remove(&mut self, order: &mut Order, id: u32) {
        let Link { before, behind } = std::mem::take(&mut self.0[id as usize]);
        match before {
            Some(before) => self.0[before as usize].behind = behind,
            None => order.first = behind,
        }
        match behind {
            Some(behind) => self.0[behind as usize].before = before,
            None => order.last = before,
        }
    }

    /// The members from the oldest on.
    pub(crate) fn iter(&self, order: &Order) -> impl Iterator<Item = u32> {
        std::iter::successors(order.first, |&id| self.0[id as usize].behind)
    }
}
