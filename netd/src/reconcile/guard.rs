//! The table that guards overlay networks, and what the firewall has dropped. A sandbox that comes, changes or goes is
//! some elements more or less, in one transaction; the whole is written at start, and when networks or others change it.

use std::collections::{BTreeMap, BTreeSet};

use netd_sys::KernelError;
use netd_sys::nft::{Named, SetChange};

use super::Reconcile;
use crate::error::Chain;
use crate::firewall::{self, Elements, GUARD};
use crate::model::{self, Driver, Endpoint, Id, Model, Network};

/// What the table has beyond the records: a port may speak from the moment that it is up, which is before its record
/// is written and after that is gone. What it says then is no forgery, and is not counted as one.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    coming: BTreeMap<Id, Elements>,
    leaving: Elements,
}

impl Beyond {
    fn all(&self) -> Elements {
        let mut all = self.leaving.clone();
        self.coming.values().for_each(|coming| all.join(coming.without(&all)));
        all
    }

    /// Who comes into the table and who goes from it with these changes. What was a sandbox's until now goes with a later
    /// one, or by [`Reconcile::disown_gone`].
    fn follow(&mut self, changes: &[model::Change], model: &Model) -> Moves {
        let (mut before, mut after) = (Elements::default(), Elements::default());
        let mut known = Elements::default();
        for change in changes {
            if let model::Change::Sandbox { before: was, after: is } = change {
                was.iter().for_each(|sandbox| before.add(sandbox, model));
                is.iter().for_each(|sandbox| after.add(sandbox, model));
                let endpoints = was.iter().chain(is).flat_map(|sandbox| &sandbox.endpoints);
                let vouched = endpoints.filter_map(|endpoint| self.coming.remove(&endpoint.id));
                vouched.for_each(|elements| known.join(elements));
            }
        }
        let come = after.without(&before).without(&known);
        // Of earlier changes: whoever made them has had the time to take the ports away.
        let gone = std::mem::replace(&mut self.leaving, before.without(&after)).without(&after);
        Moves { come, gone }
    }
}

/// To be carried out by elements, unless the table is written whole.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Moves {
    come: Elements,
    gone: Elements,
}

impl Reconcile {
    /// Speaks for an endpoint that is about to get its port. Until this is done the port may say nothing.
    pub(crate) fn vouch(&mut self, network: &Network, endpoint: &Endpoint, model: &Model) {
        if !matches!(network.driver, Driver::Overlay { .. }) {
            return;
        }
        let elements = Elements::of(endpoint);
        self.beyond.coming.insert(Id::clone(&endpoint.id), elements.clone());
        self.change_guard(&elements, &Elements::default(), model);
    }

    /// The endpoint is not going to be, and has no port any more.
    pub(crate) fn disown(&mut self, endpoint: &Endpoint, model: &Model) {
        if let Some(elements) = self.beyond.coming.remove(&endpoint.id) {
            self.change_guard(&Elements::default(), &elements, model);
        }
    }

    /// Ports whose records are gone have gone, too.
    pub(crate) fn disown_gone(&mut self, model: &Model) {
        let gone = std::mem::take(&mut self.beyond.leaving);
        self.change_guard(&Elements::default(), &gone, model);
    }

    /// Notes who comes and goes, whichever way the table is then written: before a sandbox's commit is answered.
    pub(super) fn follow_guard(&mut self, changes: &[model::Change], model: &Model) -> Moves {
        self.beyond.follow(changes, model)
    }

    pub(super) fn move_guard(&mut self, moves: &Moves, model: &Model) {
        self.change_guard(&moves.come, &moves.gone, model);
    }

    fn change_guard(&mut self, come: &Elements, gone: &Elements, model: &Model) {
        let sets: BTreeSet<_> = gone.0.keys().chain(come.0.keys()).copied().collect();
        if sets.is_empty() {
            return;
        }
        let of = |elements: &'_ Elements, set| elements.0.get(set).cloned().unwrap_or_default();
        let parts: Vec<_> = sets.into_iter().map(|set| (set, of(come, set), of(gone, set))).collect();
        let changes: Vec<_> = parts.iter().map(|(set, add, remove)| SetChange { set, add, remove }).collect();
        if let Err(error) = self.nft.change(GUARD, &changes) {
            tracing::warn!(error = %Chain(&error), "cannot change who is guarded on overlay networks: writing all of it anew");
            self.write_guard(model);
        }
    }

    pub(super) fn write_guard(&mut self, model: &Model) {
        self.keep_count(GUARD);
        let written = match firewall::guard(model, &self.beyond.all()) {
            Some(table) => self.nft.replace(&table),
            None => {
                // Nobody is left to be told apart, and there is no table to take anybody from.
                self.beyond.leaving = Elements::default();
                self.nft.delete(GUARD)
            }
        };
        if let Err(error) = written {
            tracing::error!(error = %Chain(&error), "cannot write the table that guards overlay networks");
        }
    }

    /// What a table has counted goes with it.
    pub(super) fn keep_count(&mut self, table: Named<'_>) {
        if let Err(error) = self.read_count(table) {
            tracing::debug!(error = %Chain(&error), "cannot keep what the firewall has counted");
        }
        self.dropped.entry(table.family).or_default().seen.clear();
    }

    fn read_count(&mut self, table: Named<'_>) -> Result<(), KernelError> {
        let counted = self.nft.counters(table)?;
        self.dropped.entry(table.family).or_default().read(counted);
        Ok(())
    }

    /// Packets of overlay networks and between nodes that were dropped since the start, by reason.
    pub(crate) fn dropped(&mut self) -> Result<BTreeMap<&'static str, u64>, KernelError> {
        self.read_count(firewall::TABLE.into())?;
        self.read_count(GUARD)?;
        let of = |reason: &str| self.dropped.values().filter_map(|tally| tally.total.get(reason)).sum();
        Ok(firewall::reasons().map(|reason| (reason, of(reason))).collect())
    }
}

/// What a table has counted, and those in its place before it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    total: BTreeMap<String, u64>,
    seen: BTreeMap<String, u64>,
}

impl Tally {
    /// Less than before: somebody else has made the table anew, or has taken it away.
    fn read(&mut self, counted: BTreeMap<String, u64>) {
        for (reason, packets) in &counted {
            let seen = self.seen.get(reason).copied().unwrap_or_default();
            *self.total.entry(reason.clone()).or_default() += packets.checked_sub(seen).unwrap_or(*packets);
        }
        self.seen = counted;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Change, Sandbox};
    use crate::testing;

    #[test]
    fn who_was_vouched_for_is_not_coming_once_it_is_written_and_leaves_a_change_later() {
        let mut model = Model::default();
        let network = Network { driver: Driver::Overlay { vni: 4097 }, ..testing::network("a", &[]) };
        model.networks.insert(Arc::clone(&network.id), Arc::new(network));
        let endpoint = testing::endpoint_at("id-a", &["10.0.0.2"]);
        let elements = Elements::of(&endpoint);
        let sandbox = Arc::new(Sandbox { endpoints: vec![endpoint.clone()], ..testing::sandbox("s") });
        let none = Elements::default;

        let mut beyond = Beyond::default();
        beyond.coming.insert(Arc::clone(&endpoint.id), elements.clone());
        let comes = Change::Sandbox { before: None, after: Some(Arc::clone(&sandbox)) };
        assert_eq!(beyond.follow(&[comes], &model), Moves::default(), "it is in the table already");
        assert_eq!(beyond.all(), none(), "the records speak for it");

        let goes = Change::Sandbox { before: Some(sandbox), after: None };
        assert_eq!(beyond.follow(&[goes], &model), Moves::default(), "its port is still there");
        assert_eq!(beyond.all(), elements);
        assert_eq!(beyond.follow(&[], &model), Moves { come: none(), gone: elements });
        assert_eq!(beyond.all(), none());
    }

    #[test]
    fn a_tally_never_goes_back() {
        let mut tally = Tally::default();
        let mut after = |counted: &[(&str, u64)]| {
            tally.read(counted.iter().map(|(reason, packets)| ((*reason).to_owned(), *packets)).collect());
            tally.total.get("forged").copied().unwrap_or_default()
        };
        assert_eq!(after(&[("forged", 3)]), 3);
        assert_eq!(after(&[("forged", 5)]), 5);
        assert_eq!(after(&[("forged", 1)]), 6);
        assert_eq!(after(&[]), 6);
        assert_eq!(after(&[("forged", 4)]), 10);
    }
}
