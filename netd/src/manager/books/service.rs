//! What a service holds in the cluster's store besides its record, each by a key of its own: its name, its addresses and
//! the ports that it publishes. All of it stands and falls with the record, in one transaction; so services that share
//! none of these are made at the same time on as many nodes as like, and a try that is lost leaves nothing behind.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Books, own};
use crate::error::Result;
use crate::model::{Id, LeaseHolder, Network, Protocol, Scope, Service};
use crate::store::{Key, Txn, encode, encode_lease, key_of, lease_key};

impl Books {
    /// Makes, changes or removes a service of that network, all of it or nothing. It goes through while what a look at
    /// the model has found still holds: that nobody has the name, the addresses and the ports that are new.
    pub(crate) fn put_service(
        &self,
        network: &Network,
        before: Option<&Service>,
        after: Option<&Service>,
    ) -> Result<Txn> {
        let Some(id) = before.or(after).map(|service| &service.id) else { return Ok(Txn::default()) };
        let key = key_of::<Service>(id);
        let record = match (before, after) {
            (None, _) => Txn::default().expect_absent(Arc::clone(&key)),
            // Removed as well: another node may have had it publish a port that is not known here.
            (Some(_), _) => self.revise(network.scope(), &key),
        };
        let record = match after {
            Some(after) => record.put(key, encode(after)?),
            None => record.delete(key),
        };
        let txn = record.and(self.put_vips(network, before, after)?);
        match (network.scope(), after) {
            (Scope::Local, _) => Ok(txn),
            (Scope::Shared, None) => {
                Ok(txn.and(self.put_name(before, None)).and(self.put_ports(before, None)))
            }
            (Scope::Shared, Some(_)) => {
                let txn = txn.and(self.put_name(before, after)).and(self.put_ports(before, after));
                Ok(txn.and(self.guard(network)?))
            }
        }
    }

    fn put_vips(&self, network: &Network, before: Option<&Service>, after: Option<&Service>) -> Result<Txn> {
        let of = |service: Option<&Service>| -> BTreeSet<IpAddr> {
            service.into_iter().flat_map(Service::vips).collect()
        };
        let (old, new) = (of(before), of(after));
        let gone = old.difference(&new).map(|vip| lease_key(&network.id, *vip));
        let mut txn = gone.fold(Txn::default(), Txn::delete);
        for vip in new.difference(&old) {
            let Some(service) = after else { break };
            let value = match network.scope() {
                Scope::Local => encode_lease(&service.id),
                Scope::Shared => {
                    let holder = LeaseHolder::Service(Arc::clone(&service.id));
                    encode(&own::lease(&network.id, *vip, &self.model().here, holder, &service.name))?
                }
            };
            let key = lease_key(&network.id, *vip);
            txn = txn.expect_absent(Arc::clone(&key)).put(key, value);
        }
        Ok(txn)
    }

    /// Services keep the name they were made with.
    fn put_name(&self, before: Option<&Service>, after: Option<&Service>) -> Txn {
        let key = |service: &Service| Key::from(format!("service-name/{}", service.name));
        match (before, after) {
            (None, Some(after)) => {
                let key = key(after);
                Txn::default().expect_absent(Arc::clone(&key)).put(key, after.id.as_bytes())
            }
            (Some(before), None) => Txn::default().delete(key(before)),
            _ => Txn::default(),
        }
    }

    /// Two services may have one port on different addresses, so which clash is not for the store to say: whoever takes
    /// or leaves a port is alone with it.
    fn put_ports(&self, before: Option<&Service>, after: Option<&Service>) -> Txn {
        let of = |service: Option<&Service>| -> BTreeSet<(Protocol, u16, Vec<IpAddr>)> {
            let publishes = service.into_iter().flat_map(|service| &service.publishes);
            publishes.map(|one| (one.protocol, one.published, one.addresses.clone())).collect()
        };
        let (old, new) = (of(before), of(after));
        let touched: BTreeSet<(Protocol, u16)> =
            old.symmetric_difference(&new).map(|(protocol, port, _)| (*protocol, *port)).collect();
        let id = before.or(after).map(|service| &service.id);
        touched.into_iter().fold(Txn::default(), |txn, (protocol, port)| {
            let key: Key = format!("port/{}/{port}", protocol.as_str()).into();
            let stays = new.iter().any(|(other, number, _)| (*other, *number) == (protocol, port));
            txn.and(match stays || self.publish(protocol, port, id) {
                true => self.alone(key),
                false => self.revise(Scope::Shared, &key).delete(key),
            })
        })
    }

    /// Whether the cluster has another service with that port.
    fn publish(&self, protocol: Protocol, port: u16, but: Option<&Id>) -> bool {
        let model = self.model();
        let shared = |service: &&Arc<Service>| {
            model.networks.get(&service.network).is_none_or(|network| network.scope() == Scope::Shared)
        };
        let others = model.services.values().filter(|service| Some(&service.id) != but);
        others.filter(shared).any(|service| {
            service.publishes.iter().any(|one| (one.protocol, one.published) == (protocol, port))
        })
    }
}
