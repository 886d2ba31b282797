//! The table that guards overlay networks, and what the firewall has dropped. A sandbox that comes, changes or goes is
//! some elements more or less, in one transaction; the whole is written at start, and when networks or others change it.

use std::collections::{BTreeMap, BTreeSet};

use netd_sys::KernelError;
use netd_sys::nft::{Named, SetChange};

use super::Reconcile;
use crate::error::Chain;
use crate::firewall::{self, Elements, GUARD};
use crate::model::{self, Model};

impl Reconcile {
    /// Before a sandbox's commit is answered: until then its port may say nothing.
    pub(super) fn follow_guard(&mut self, changes: &[model::Change], model: &Model) {
        let (mut before, mut after) = (Elements::default(), Elements::default());
        for change in changes {
            if let model::Change::Sandbox { before: was, after: is } = change {
                was.iter().for_each(|sandbox| before.add(sandbox, model));
                is.iter().for_each(|sandbox| after.add(sandbox, model));
            }
        }
        let (gone, come) = (before.without(&after), after.without(&before));
        let sets: BTreeSet<_> = gone.0.keys().chain(come.0.keys()).copied().collect();
        if sets.is_empty() {
            return;
        }
        let of = |elements: &'_ Elements, set| elements.0.get(set).cloned().unwrap_or_default();
        let parts: Vec<_> = sets.into_iter().map(|set| (set, of(&come, set), of(&gone, set))).collect();
        let changes: Vec<_> = parts.iter().map(|(set, add, remove)| SetChange { set, add, remove }).collect();
        if let Err(error) = self.nft.change(GUARD, &changes) {
            tracing::warn!(error = %Chain(&error), "cannot change who is guarded on overlay networks: writing all of it anew");
            self.write_guard(model);
        }
    }

    pub(super) fn write_guard(&mut self, model: &Model) {
        self.keep_count(GUARD);
        let written = match firewall::guard(model) {
            Some(table) => self.nft.replace(&table),
            None => self.nft.delete(GUARD),
        };
        if let Err(error) = written {
            tracing::error!(error = %Chain(&error), "cannot write the table that guards overlay networks");
        }
    }

    /// What a table has counted goes with it.
    pub(super) fn keep_count(&mut self, table: Named<'_>) {
        match self.nft.counters(table) {
            Ok(counted) => {
                for (reason, packets) in counted {
                    *self.dropped.entry(reason).or_default() += packets;
                }
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot keep what the firewall has counted");
            }
        }
    }

    /// Packets of overlay networks and between nodes that were dropped since the start, by reason.
    pub(crate) fn dropped(&mut self) -> Result<BTreeMap<&'static str, u64>, KernelError> {
        let now = [self.nft.counters(firewall::TABLE)?, self.nft.counters(GUARD)?];
        let of = |reason: &str| {
            let all = now.iter().chain([&self.dropped]);
            all.filter_map(|counted| counted.get(reason)).sum()
        };
        Ok(firewall::reasons().map(|reason| (reason, of(reason))).collect())
    }
}
