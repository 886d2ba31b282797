//! Which namespaces are on the networks whose services are led. Networks and namespaces are numbers to the programs: a
//! network's is ours to give, a namespace's is the kernel's and never another's until the next boot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netd_sys::bpf::eastwest::Entry;
use netd_sys::netns::Netns;

use super::content::{Members, Step};
use crate::error::Chain;
use crate::model::{self, Id, Model, Sandbox, SandboxKey};

#[derive(Debug, Default)]
pub(super) struct Namespaces {
    numbers: BTreeMap<Id, u32>,
    last_number: u32,
    seated: BTreeMap<Id, Seated>,
    /// Of an earlier process, until it is known who they are.
    found: Members,
}

#[derive(Debug)]
struct Seated {
    identity: (u64, u64),
    cookie: u64,
    networks: BTreeSet<u32>,
}

/// On any network.
const ANY: u32 = 0;

impl Namespaces {
    pub(super) fn found(members: Members) -> Self {
        let last_number = members.iter().map(|(_, network)| *network).max().unwrap_or(ANY);
        Self { found: members, last_number, ..Self::default() }
    }

    pub(super) fn number(&mut self, network: &Id) -> u32 {
        if let Some(number) = self.numbers.get(network) {
            return *number;
        }
        self.last_number += 1;
        self.numbers.insert(Arc::clone(network), self.last_number);
        self.last_number
    }

    /// Services are led on networks that are `served`, since now or until now on those that are `touched`; with `full`,
    /// who is not among the members any more is not told by the records.
    pub(super) fn follow(
        &mut self,
        served: impl Fn(&Id) -> bool,
        touched: &BTreeSet<Id>,
        records: &[model::Change],
        model: &Model,
        full: bool,
    ) -> Vec<Step> {
        let mut concerned: BTreeSet<Id> = BTreeSet::new();
        for record in records {
            if let model::Change::Sandbox { before, after } = record {
                concerned.extend(before.iter().chain(after).map(|sandbox| Arc::clone(&sandbox.id)));
            }
        }
        for network in touched {
            let on = model.sandboxes.by(&SandboxKey::On(Arc::clone(network)));
            concerned.extend(on.map(|sandbox| Arc::clone(&sandbox.id)));
        }
        if full {
            concerned.extend(self.seated.keys().cloned());
        }
        let mut steps: Vec<Step> =
            concerned.iter().flat_map(|id| self.seat(id, model.sandboxes.get(id), &served)).collect();
        if full {
            let known: Members = self.seated.values().flat_map(Seated::members).collect();
            let strange =
                std::mem::take(&mut self.found).into_iter().filter(|member| !known.contains(member));
            steps.extend(
                strange.map(|(namespace, network)| Step::Remove(Entry::Member { namespace, network })),
            );
        }
        steps
    }

    fn seat(&mut self, id: &Id, sandbox: Option<&Arc<Sandbox>>, served: impl Fn(&Id) -> bool) -> Vec<Step> {
        let before = self.seated.remove(id);
        let mut networks: BTreeSet<u32> = BTreeSet::new();
        for endpoint in sandbox.iter().flat_map(|sandbox| &sandbox.endpoints) {
            if served(&endpoint.network) {
                networks.insert(self.number(&endpoint.network));
            }
        }
        let after = sandbox.filter(|_| !networks.is_empty()).and_then(|sandbox| {
            let known = before.as_ref().filter(|seated| seated.identity == sandbox.netns_identity);
            let cookie = known.map(|seated| seated.cookie).or_else(|| cookie(sandbox))?;
            networks.insert(ANY);
            Some(Seated { identity: sandbox.netns_identity, cookie, networks })
        });
        let members = |seated: &Option<Seated>| seated.iter().flat_map(Seated::members).collect::<Members>();
        let (was, is) = (members(&before), members(&after));
        let entry =
            |(namespace, network): &(u64, u32)| Entry::Member { namespace: *namespace, network: *network };
        let put = is.difference(&was).map(entry).map(Step::Put);
        let steps = put.chain(was.difference(&is).map(entry).map(Step::Remove)).collect();
        if let Some(after) = after {
            self.seated.insert(Arc::clone(id), after);
        }
        steps
    }
}

impl Seated {
    fn members(&self) -> impl Iterator<Item = (u64, u32)> {
        self.networks.iter().map(|network| (self.cookie, *network))
    }
}

/// None if it cannot be told: its connections are relayed.
fn cookie(sandbox: &Sandbox) -> Option<u64> {
    let netns = match Netns::open(&sandbox.netns) {
        Ok(netns) if (netns.id().device, netns.id().inode) == sandbox.netns_identity => netns,
        // A dead one has nobody who could connect.
        Ok(_) | Err(_) => return None,
    };
    let cookie = netns.cookie();
    cookie
        .inspect_err(|error| {
            tracing::warn!(sandbox = %sandbox.name, error = %Chain(error), "its connections to services are relayed");
        })
        .ok()
}
