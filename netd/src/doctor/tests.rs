use std::sync::Arc;

use netd_api::system::Verdict;
use netd_sys::nft::{Family, Hook, Hooked, Passage};

use super::firewall::{self, BridgeFilters};
use crate::model::Model;
use crate::testing;

const OFF: BridgeFilters = BridgeFilters { v4: false, v6: false };

/// Two networks, one of them with IPv6, and a sandbox on it.
fn model() -> Model {
    let app = testing::network("app", &[("10.0.1.0/24", "10.0.1.1"), ("fd01::/64", "fd01::1")]);
    let db = testing::network("db", &[("10.0.2.0/24", "10.0.2.1")]);
    let mut web = testing::sandbox("web");
    web.endpoints.push(testing::endpoint_at("id-app", &["10.0.1.2"]));
    let mut model = Model::default();
    for network in [app, db] {
        model.networks.insert(Arc::clone(&network.id), Arc::new(network));
    }
    model.sandboxes.insert(Arc::clone(&web.id), Arc::new(web));
    model
}

fn chain(family: Family, table: &str, chain: &str, hook: Hook, accept: bool) -> Hooked {
    let (table, chain, kind) = (table.to_owned(), chain.to_owned(), "filter".to_owned());
    Hooked { family, table, chain, kind, hook, priority: 0, accept }
}

fn passage(family: Family, table: &str, link: &str, is_prefix: bool) -> Passage {
    Passage { family, table: table.into(), link: link.into(), is_prefix }
}

/// The detail of the one warning there is, or none.
fn told(hooked: &[Hooked], passages: &[Passage], filters: BridgeFilters) -> Option<String> {
    let checks = firewall::examine(&model(), hooked, passages, &filters);
    let mut faults = checks.into_iter().filter(|check| check.verdict != Verdict::Ok);
    let fault = faults.next();
    assert_eq!(faults.next(), None, "one chain is one fault");
    fault.map(|fault| {
        assert!(fault.remedy.is_some(), "{fault:?}");
        fault.detail
    })
}

#[test]
fn a_policy_of_drop_is_named_with_the_bridges_it_stops() {
    let docker = [chain(Family::Ip, "filter", "FORWARD", Hook::Forward, false)];
    let told_of = told(&docker, &[], OFF).unwrap();
    assert!(told_of.contains("chain FORWARD of table ip filter"), "{told_of}");
    assert!(told_of.contains("nd-app (app), nd-db (db)") && !told_of.contains("neighbours"), "{told_of}");
    let neighbours = told(&docker, &[], BridgeFilters { v4: true, v6: false }).unwrap();
    assert!(neighbours.contains("neighbours"), "{neighbours}");
    let six = [chain(Family::Ip6, "filter", "FORWARD", Hook::Forward, false)];
    let only_app = told(&six, &[], BridgeFilters { v4: true, v6: false }).unwrap();
    assert!(!only_app.contains("nd-db") && !only_app.contains("neighbours"), "{only_app}");
}

#[test]
fn rules_that_know_the_bridges_settle_it_for_their_own_table() {
    let docker = [chain(Family::Ip, "filter", "FORWARD", Hook::Forward, false)];
    let by_name = [passage(Family::Ip, "filter", "nd-app", false)];
    let left = told(&docker, &by_name, OFF).unwrap();
    assert!(left.contains("nd-db") && !left.contains("nd-app"), "{left}");
    assert_eq!(told(&docker, &[passage(Family::Ip, "filter", "nd-", true)], OFF), None);
    for elsewhere in [passage(Family::Ip, "other", "nd-", true), passage(Family::Inet, "filter", "nd-", true)]
    {
        assert!(told(&docker, &[elsewhere], OFF).is_some());
    }
}

#[test]
fn what_accepts_or_is_ours_or_is_elsewhere_is_no_fault() {
    for harmless in [
        chain(Family::Ip, "filter", "FORWARD", Hook::Forward, true),
        chain(Family::Inet, crate::firewall::TABLE, "forward", Hook::Forward, false),
        chain(Family::Inet, "fw", "output", Hook::Output, false),
        chain(Family::Inet, "fw", "input", Hook::Input, false),
    ] {
        assert_eq!(told(&[harmless], &[], OFF), None);
    }
}

#[test]
fn a_policy_for_frames_is_about_the_ports_of_bridges() {
    let frames = [chain(Family::Bridge, "filter", "FORWARD", Hook::Forward, false)];
    assert!(told(&frames, &[], OFF).unwrap().contains("1 endpoints"));
    assert_eq!(told(&frames, &[passage(Family::Bridge, "filter", "nv", true)], OFF), None);
}

#[test]
fn long_lists_are_cut() {
    assert_eq!(super::some_of(&["a", "b"]), "a, b");
    assert_eq!(super::some_of(&["1", "2", "3", "4", "5", "6", "7"]), "1, 2, 3, 4, 5 and 2 more");
}
