//! What one name leads to, in the form that questions are answered from: without doubles, and with the place that the next
//! answer starts at. Building one takes time in proportion to its records. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use crate::rotate::Turn;
use crate::table::{Name, Srv};

#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
    /// Shared, so that the tables can be looked into for the targets while the records are gone through.
    pub(crate) srv: Option<Rc<[Place]>>,
    /// Without a dot at the end.
    pub(crate) alias: Option<Arc<str>>,
    pub(crate) turn_v4: Turn,
    pub(crate) turn_v6: Turn,
    pub(crate) turn_srv: Turn,
    pub(crate) primary_for: Vec<IpAddr>,
}

/// An SRV record.
pub(crate) struct Place {
    pub(crate) srv: Srv,
    /// How many records before this one, going round, the target was named the last time; all of them if it is named once.
    /// So an answer that starts anywhere knows which targets it has had, without keeping a list.
    pub(crate) distance: usize,
}

impl Entry {
    pub(crate) fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut entry = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => entry.v4.push(v4),
                IpAddr::V6(v6) => entry.v6.push(v6),
            }
        }
        drop_doubles(&mut entry.v4);
        drop_doubles(&mut entry.v6);
        entry
    }

    pub(crate) fn of(name: &Name) -> Self {
        let alias = name.alias.as_ref().map(|alias| match alias.strip_suffix('.') {
            Some(alias) => alias.into(),
            None => Arc::clone(alias),
        });
        Self {
            srv: places(&name.srv),
            alias,
            primary_for: name.primary_for.clone(),
            ..Self::new(name.addresses.iter().copied())
        }
    }

    /// A name that stays keeps its turns, so that one member's coming and going does not favour the first.
    pub(crate) fn take_turns_of(&mut self, before: &Self) {
        (self.turn_v4, self.turn_v6) = (before.turn_v4, before.turn_v6);
        self.turn_srv = before.turn_srv;
    }
}

fn places(records: &[Srv]) -> Option<Rc<[Place]>> {
    let mut records = records.to_vec();
    drop_doubles(&mut records);
    let count = records.len();
    // Once round to know where each target was last, once more to note it.
    let mut last = HashMap::new();
    for (at, srv) in records.iter().enumerate() {
        last.insert(srv.target.to_ascii_lowercase(), at);
    }
    let mut places = Vec::with_capacity(count);
    for (at, srv) in records.into_iter().enumerate() {
        let before = last.insert(srv.target.to_ascii_lowercase(), at).unwrap_or(at);
        let distance = if before < at { at - before } else { at + count - before };
        places.push(Place { srv, distance });
    }
    (count > 0).then(|| places.into())
}

/// The first of equal ones stays.
fn drop_doubles<T: Clone + Eq + Hash>(all: &mut Vec<T>) {
    if all.len() > 1 {
        let mut seen = HashSet::with_capacity(all.len());
        all.retain(|one| seen.insert(one.clone()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn srv(port: u16, target: &str) -> Srv {
        Srv { priority: 0, weight: 0, port, target: target.into() }
    }

    proptest! {
        #[test]
        fn a_window_knows_which_targets_it_has_had(
            targets in proptest::collection::vec(0_u8..6, 1..20),
            start in 0_usize..20,
        ) {
            let records: Vec<Srv> =
                (1..).zip(&targets).map(|(port, target)| srv(port, &format!("t{target}"))).collect();
            let places = places(&records).unwrap();
            let mut had = HashSet::new();
            for step in 0..places.len() {
                let place = &places[(start + step) % places.len()];
                prop_assert_eq!(place.distance > step, had.insert(place.srv.target.clone()));
            }
        }
    }

    #[test]
    fn doubles_are_dropped_and_the_order_stays() {
        let addresses = ["10.0.0.2", "10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        assert_eq!(Entry::new(addresses).v4, [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1)]);
        let name = Name { srv: vec![srv(80, "a"), srv(80, "a"), srv(81, "a")], ..Name::default() };
        let ports: Vec<u16> = Entry::of(&name).srv.unwrap().iter().map(|place| place.srv.port).collect();
        assert_eq!(ports, [80, 81]);
    }
}
