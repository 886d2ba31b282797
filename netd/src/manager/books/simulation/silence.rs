//! What the store tells and no table depends on, in a cluster of the simulation.

use std::sync::Arc;

use super::World;
use crate::ipam::{Family, Holder};
use crate::model::{LeaseHolder, Sandbox, Scope};
use crate::store::{Txn, encode, key_of};
use crate::testing;

/// What nobody's tables depend on makes no revision, so nothing is sent and nobody waits for it.
#[test]
fn an_address_that_is_taken_concerns_no_table_and_an_endpoint_does() {
    let mut world = World::new(1);
    world.make_network(0);
    world.come_to_rest();
    let network =
        world.hosts[0].books.as_ref().and_then(|books| books.model().networks.values().next().cloned());
    let network = network.expect("a network");
    let looked = |world: &mut World| {
        let books = world.hosts[1].books.as_mut().expect("it runs");
        while books.take_in_shared() {}
        (books.revision(), books.take_fresh())
    };
    let (rest, _) = looked(&mut world);

    let mut sandbox = testing::sandbox("s");
    let holder = Holder::sandbox(&sandbox.id, &sandbox.name);
    let as_whom = LeaseHolder::Sandbox(Arc::clone(&sandbox.id));
    let books = world.hosts[0].books.as_mut().expect("it runs");
    let address = books.claim(&network, &holder, &as_whom, |leases| leases.lease(Family::V4, &holder));
    let address = address.expect("an address");
    let (claimed, fresh) = looked(&mut world);
    assert_eq!((claimed, fresh), (rest, None));
    let leases = &world.hosts[1].books.as_ref().expect("it runs").model().leases;
    assert!(leases[&network.id].contains_key(&address.0), "it is known all the same");

    sandbox.endpoints.push(testing::endpoint(&network.id, &[address]));
    let txn = Txn::default().put(key_of::<Sandbox>(&sandbox.id), encode(&sandbox).expect("a record"));
    let books = world.hosts[0].books.as_mut().expect("it runs");
    books.commit(Scope::Local, &txn).expect("a local commit");
    books.settle().expect("a member");
    let (served, fresh) = looked(&mut world);
    assert!(served > rest && fresh.is_some_and(|changes| changes.len() == 1), "one endpoint more");
    // Its own node has it in its tables by its own record.
    let books = world.hosts[0].books.as_mut().expect("it runs");
    books.take_fresh();
    let own = books.revision();
    while books.take_in_shared() {}
    assert_eq!((books.revision(), books.take_fresh()), (own, None));
}
