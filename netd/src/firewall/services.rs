//! Addresses of services, as elements of the host table's sets. One that comes or goes is one element of each: how many
//! others there are makes no difference. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netd_sys::nft::{Element, Set, Type, Value};

use super::set;
use crate::model::{Id, Model, Network, Service};

/// All; with the bridge they are on; those that are for every network of ours.
pub(super) const VIPS: [&str; 2] = ["vip4", "vip6"];
pub(super) const VIPS_AT_HOME: [&str; 2] = ["vip4_home", "vip6_home"];
pub(super) const VIPS_OPEN: [&str; 2] = ["vip4_open", "vip6_open"];

/// An address that the host answers at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vip {
    pub address: IpAddr,
    home: Home,
}

/// Where it is, and whether it is for other networks of ours too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Home {
    bridge: Arc<str>,
    is_open: bool,
}

impl Home {
    /// None where the network is not on this node.
    pub(super) fn of(network: &Id, model: &Model) -> Option<Self> {
        model.networks.get(network).filter(|_| model.is_here(network)).map(|network| Self::from(&**network))
    }
}

impl From<&Network> for Home {
    fn from(network: &Network) -> Self {
        Self { bridge: Arc::clone(&network.bridge), is_open: !network.options.isolate }
    }
}

impl Vip {
    /// Those of a service on a network that is there.
    pub(super) fn all(service: &Service, home: Option<Home>) -> impl Iterator<Item = Self> {
        service.vips().filter_map(move |address| Some(Self { address, home: home.clone()? }))
    }

    /// Its elements, each with its set.
    fn elements(&self) -> impl Iterator<Item = (&'static str, Vec<Value>)> {
        let at = usize::from(self.address.is_ipv6());
        let (bridge, address) = (Value::Name(self.home.bridge.to_string()), Value::Address(self.address));
        let home = (VIPS_AT_HOME[at], vec![bridge, address.clone()]);
        let open = self.home.is_open.then(|| (VIPS_OPEN[at], vec![address.clone()]));
        [(VIPS[at], vec![address]), home].into_iter().chain(open)
    }
}

pub(super) fn vips_here(model: &Model) -> impl Iterator<Item = Vip> {
    model.services.values().flat_map(|service| Vip::all(service, Home::of(&service.network, model)))
}

/// The set of all addresses of services of a family.
pub(crate) fn vip_set(v4: bool) -> &'static str {
    VIPS[usize::from(!v4)]
}

pub(super) fn sets(model: &Model) -> Vec<Set> {
    let mut keys: BTreeMap<&str, Vec<Vec<Value>>> = BTreeMap::new();
    for vip in vips_here(model) {
        vip.elements().for_each(|(set, key)| keys.entry(set).or_default().push(key));
    }
    let families = [Type::Ip4, Type::Ip6].into_iter().enumerate();
    families
        .flat_map(|(at, kind)| {
            [(VIPS[at], vec![kind]), (VIPS_AT_HOME[at], vec![Type::Name, kind]), (VIPS_OPEN[at], vec![kind])]
        })
        .map(|(name, key)| set(name, &key, keys.remove(name).unwrap_or_default()))
        .collect()
}

/// What goes out of each set, and what comes in.
pub(crate) fn change(
    gone: &BTreeSet<Vip>,
    new: &BTreeSet<Vip>,
) -> BTreeMap<&'static str, (Vec<Element>, Vec<Element>)> {
    let mut sets: BTreeMap<&str, (Vec<Element>, Vec<Element>)> = BTreeMap::new();
    for (set, key) in gone.difference(new).flat_map(Vip::elements) {
        sets.entry(set).or_default().0.push(Element::key(key));
    }
    for (set, key) in new.difference(gone).flat_map(Vip::elements) {
        sets.entry(set).or_default().1.push(Element::key(key));
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn model(services: &[(&str, &str, u8)]) -> Model {
        let mut model = Model::default();
        for (name, isolate) in [("a", true), ("b", false)] {
            let mut network = testing::network(name, &[]);
            network.options.isolate = isolate;
            model.networks.insert(Arc::clone(&network.id), Arc::new(network));
        }
        for (name, network, number) in services {
            let service = testing::service(name, &format!("id-{network}"), &format!("10.0.0.{number}"));
            model.services.insert(Arc::clone(&service.id), Arc::new(service));
        }
        model
    }

    #[test]
    fn a_change_leads_from_the_one_table_to_the_next() {
        let states = [
            model(&[("web", "a", 1), ("mail", "b", 2)]),
            model(&[("web", "a", 1)]),
            model(&[("web", "b", 1), ("news", "b", 3)]),
            model(&[("mail", "b", 1), ("news", "b", 4)]),
            model(&[]),
        ];
        for before in &states {
            for after in &states {
                let [gone, new] = [before, after].map(|model| vips_here(model).collect::<BTreeSet<_>>());
                let mut changes = change(&gone, &new);
                for (was, is) in sets(before).into_iter().zip(sets(after)) {
                    let (remove, add) = changes.remove(&*was.name).unwrap_or_default();
                    assert!(remove.iter().all(|element| was.elements.contains(element)), "{}", was.name);
                    let left = was.elements.into_iter().filter(|element| !remove.contains(element));
                    let mut got: Vec<String> =
                        left.chain(add).map(|element| format!("{element:?}")).collect();
                    let mut wanted: Vec<String> =
                        is.elements.iter().map(|element| format!("{element:?}")).collect();
                    got.sort();
                    wanted.sort();
                    assert_eq!(got, wanted, "{}", is.name);
                }
                assert!(changes.is_empty());
            }
        }
    }
}
