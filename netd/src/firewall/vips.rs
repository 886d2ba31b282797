//! How the addresses of services that this node answers at change with the records. Pure.
//!
//! They come and go with their service, with their network, and on an overlay network with the first and the last sandbox
//! here. What was before a batch follows from what is behind it and the batch itself, so the work is that of the batch:
//! a sandbox more on a network that is here already costs a look at one other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::services::{Home, Vip};
use crate::model::{Change, Driver, Id, Model, Network, Sandbox, SandboxKey, Service, ServiceKey};

/// Addresses that this node has answered at until now, and that it does from now on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct VipChange {
    pub gone: BTreeSet<Vip>,
    pub new: BTreeSet<Vip>,
}

impl VipChange {
    /// By these changes, which have led to this model.
    pub(crate) fn of(changes: &[Change], after: &Model) -> Self {
        let before = Before::of(changes, after);
        let mut concerned: BTreeSet<&Id> = before.services.keys().copied().collect();
        for network in before.touched_networks() {
            if before.home(network) != Home::of(network, after) {
                let on = after.services.by(&ServiceKey::On(Arc::clone(network)));
                concerned.extend(on.map(|service| &service.id));
            }
        }
        let (mut was, mut is) = (BTreeSet::new(), BTreeSet::new());
        for id in concerned {
            if let Some(service) = before.service(id) {
                was.extend(Vip::all(service, before.home(&service.network)));
            }
            if let Some(service) = after.services.get(id) {
                is.extend(Vip::all(service, Home::of(&service.network, after)));
            }
        }
        Self { gone: was.difference(&is).cloned().collect(), new: is.difference(&was).cloned().collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }
}

/// The records as they were, where they are other ones now.
struct Before<'a> {
    after: &'a Model,
    networks: BTreeMap<&'a Id, Option<&'a Network>>,
    sandboxes: BTreeMap<&'a Id, Option<&'a Sandbox>>,
    services: BTreeMap<&'a Id, Option<&'a Service>>,
}

impl<'a> Before<'a> {
    /// Of several changes of a record the first knows.
    fn of(changes: &'a [Change], after: &'a Model) -> Self {
        let (mut networks, mut sandboxes, mut services) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for change in changes {
            match change {
                Change::Network { before, after } => {
                    note(&mut networks, before.as_deref(), after.as_deref(), |network| &network.id);
                }
                Change::Sandbox { before, after } => {
                    note(&mut sandboxes, before.as_deref(), after.as_deref(), |sandbox| &sandbox.id);
                }
                Change::Service { before, after } => {
                    note(&mut services, before.as_deref(), after.as_deref(), |service| &service.id);
                }
                Change::Node { .. }
                | Change::Member { .. }
                | Change::Peer { .. }
                | Change::Findings { .. } => {}
            }
        }
        Self { after, networks, sandboxes, services }
    }

    /// Those that are, or have been, of a record that changes, or of who is on them.
    fn touched_networks(&self) -> BTreeSet<&'a Id> {
        let was = self.sandboxes.values().flatten().copied();
        let is = self.sandboxes.keys().filter_map(|id| self.after.sandboxes.get(*id)).map(|is| &**is);
        let of_sandboxes = was.chain(is).flat_map(|sandbox| &sandbox.endpoints);
        let of_sandboxes = of_sandboxes.map(|endpoint| &endpoint.network);
        self.networks.keys().copied().chain(of_sandboxes).collect()
    }

    fn service(&self, id: &Id) -> Option<&'a Service> {
        match self.services.get(id) {
            Some(before) => *before,
            None => self.after.services.get(id).map(|service| &**service),
        }
    }

    fn home(&self, network: &Id) -> Option<Home> {
        let record = match self.networks.get(network) {
            Some(before) => *before,
            None => self.after.networks.get(network).map(|network| &**network),
        };
        record.filter(|record| self.was_here(record)).map(Home::from)
    }

    /// [`Model::is_here`] of before: somebody was on it whose record changes, or is on it whose record does not.
    fn was_here(&self, network: &Network) -> bool {
        let is_on = |sandbox: &Sandbox| sandbox.endpoints.iter().any(|one| one.network == network.id);
        let stays = |sandbox: &Sandbox| !self.sandboxes.contains_key(&sandbox.id);
        match network.driver {
            Driver::Bridge => true,
            Driver::Overlay { .. } => {
                let mut on = self.after.sandboxes.by(&SandboxKey::On(Arc::clone(&network.id)));
                self.sandboxes.values().flatten().any(|was| is_on(was)) || on.any(|sandbox| stays(sandbox))
            }
        }
    }
}

fn note<'a, T>(
    known: &mut BTreeMap<&'a Id, Option<&'a T>>,
    before: Option<&'a T>,
    after: Option<&'a T>,
    id: impl Fn(&'a T) -> &'a Id,
) {
    if let Some(one) = before.or(after) {
        known.entry(id(one)).or_insert(before);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::services::vips_here;
    use super::*;
    use crate::model::{Indexed, Keyed};
    use crate::testing;

    const NETWORKS: u8 = 3;

    /// What a step makes of one record.
    #[derive(Clone, Debug)]
    enum Step {
        Network {
            number: u8,
            stays: bool,
            isolate: bool,
        },
        /// On the networks whose bits are set.
        Sandbox {
            number: u8,
            stays: bool,
            on: u8,
        },
        Service {
            number: u8,
            stays: bool,
            network: u8,
            address: u8,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let network = (0..NETWORKS, prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(number, stays, isolate)| Step::Network { number, stays, isolate });
        let sandbox = (0..4_u8, any::<bool>(), 0..1_u8 << NETWORKS)
            .prop_map(|(number, stays, on)| Step::Sandbox { number, stays, on });
        let service = (0..4_u8, prop::bool::weighted(0.7), 0..NETWORKS, 0..6_u8)
            .prop_map(|(number, stays, network, address)| Step::Service { number, stays, network, address });
        prop_oneof![1 => network, 3 => sandbox, 2 => service]
    }

    /// The first is a bridge, the others are overlays.
    fn network(number: u8, isolate: bool) -> Network {
        let mut network = testing::network(&format!("n{number}"), &[]);
        network.options.isolate = isolate;
        if number > 0 {
            network.driver = Driver::Overlay { vni: 4096 + u32::from(number) };
        }
        network
    }

    fn id(network: u8) -> String {
        format!("id-n{network}")
    }

    fn set<T: Keyed>(records: &mut Indexed<T>, id: &str, after: Option<&Arc<T>>) -> Option<Arc<T>> {
        match after {
            Some(after) => records.insert(id.into(), Arc::clone(after)),
            None => records.remove(id),
        }
    }

    impl Step {
        fn take(&self, model: &mut Model) -> Option<Change> {
            match *self {
                Self::Network { number, stays, isolate } => {
                    let after = stays.then(|| Arc::new(network(number, isolate)));
                    let before = set(&mut model.networks, &id(number), after.as_ref());
                    (before != after).then_some(Change::Network { before, after })
                }
                Self::Sandbox { number, stays, on } => {
                    let mut sandbox = testing::sandbox(&format!("s{number}"));
                    let networks = (0..NETWORKS).filter(|network| on & (1 << network) != 0);
                    sandbox.endpoints =
                        networks.map(|network| testing::endpoint_at(&id(network), &[])).collect();
                    let after = stays.then(|| Arc::new(sandbox));
                    let before = set(&mut model.sandboxes, &format!("id-s{number}"), after.as_ref());
                    (before != after).then_some(Change::Sandbox { before, after })
                }
                Self::Service { number, stays, network, address } => {
                    let address = format!("10.0.0.{address}");
                    let (name, network) = (format!("v{number}"), id(network));
                    let service = testing::service(&name, &network, &address);
                    // What is one's is nobody else's at the same time.
                    let has = |other: &Arc<Service>| {
                        other.network == service.network
                            && other.vips().any(|vip| service.vips().any(|own| own == vip))
                    };
                    let is_taken = model.services.values().any(|other| other.id != service.id && has(other));
                    let after = (stays && !is_taken).then(|| Arc::new(service));
                    let before = set(&mut model.services, &format!("id-v{number}"), after.as_ref());
                    (before != after).then_some(Change::Service { before, after })
                }
            }
        }
    }

    fn all(model: &Model) -> BTreeSet<Vip> {
        vips_here(model).collect()
    }

    proptest! {
        #[test]
        fn it_is_the_difference_of_what_was_and_what_is(batches in prop::collection::vec(prop::collection::vec(step(), 0..6), 0..16)) {
            let mut model = Model::default();
            for batch in batches {
                let was = all(&model);
                let changes: Vec<Change> = batch.iter().filter_map(|step| step.take(&mut model)).collect();
                let is = all(&model);
                let VipChange { gone, new } = VipChange::of(&changes, &model);
                prop_assert_eq!(gone, was.difference(&is).cloned().collect(), "gone");
                prop_assert_eq!(new, is.difference(&was).cloned().collect(), "new");
            }
        }
    }

    #[test]
    fn who_joins_others_on_a_network_changes_nothing() {
        let mut model = Model::default();
        let mut after = |step: Step| {
            let changes: Vec<Change> = step.take(&mut model).into_iter().collect();
            let VipChange { gone, new } = VipChange::of(&changes, &model);
            (gone.len(), new.len())
        };
        let sandbox = |number, stays| Step::Sandbox { number, stays, on: 0b010 };
        assert_eq!(after(Step::Network { number: 1, stays: true, isolate: true }), (0, 0));
        assert_eq!(after(Step::Service { number: 1, stays: true, network: 1, address: 1 }), (0, 0));
        assert_eq!(after(sandbox(1, true)), (0, 1), "the first one here");
        assert_eq!(after(sandbox(2, true)), (0, 0));
        assert_eq!(after(sandbox(1, false)), (0, 0));
        assert_eq!(after(Step::Network { number: 1, stays: true, isolate: false }), (1, 1), "open to others");
        assert_eq!(after(sandbox(2, false)), (1, 0), "the last one here");
    }
}
