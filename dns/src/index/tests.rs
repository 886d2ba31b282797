use std::net::Ipv4Addr;

use super::*;
use crate::table::{Forward, ViewZone};

fn name(name: &str, addresses: &[&str]) -> Name {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Name { name: name.into(), primary_for: addresses.clone(), addresses, ..Name::default() }
}

fn view(id: &str, zones: &[(&str, &str)], names: Vec<Name>) -> View {
    let zones =
        zones.iter().map(|(zone, suffix)| ViewZone { zone: (*zone).into(), suffix: (*suffix).into() });
    View {
        id: id.into(),
        zones: zones.collect(),
        names,
        forward: Forward::Never,
        single_labels_are_local: false,
    }
}

fn dotted(name: &str) -> DottedName {
    let mut wire: Vec<u8> = Vec::new();
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    DottedName::read(&wire).unwrap().0
}

fn found(index: &mut Index, view: ViewKey, name: &str) -> Option<Vec<Ipv4Addr>> {
    index.find(view, &dotted(name)).map(|found| found.entry.v4.clone())
}

fn one(address: &str) -> Option<Vec<Ipv4Addr>> {
    Some(vec![address.parse().unwrap()])
}

#[test]
fn the_first_zone_that_has_a_name_answers_and_links_go_before() {
    let mut index = Index::default();
    index.put_name(&"1".into(), &name("web", &["10.0.1.1"]));
    index.put_name(&"2".into(), &name("web", &["10.0.2.1"]));
    index.put_name(&"2".into(), &name("db", &["10.0.2.2"]));
    let key = index.put_view(&view("v", &[("1", "one"), ("2", "two")], vec![name("alias", &["10.0.9.9"])]));
    assert_eq!(found(&mut index, key, "web"), one("10.0.1.1"));
    assert_eq!(found(&mut index, key, "web.two"), one("10.0.2.1"));
    assert_eq!(found(&mut index, key, "db"), one("10.0.2.2"));
    assert_eq!(found(&mut index, key, "db.one"), None);
    assert_eq!(found(&mut index, key, "alias"), one("10.0.9.9"));
    index.put_view(&view("v", &[("2", "two")], vec![name("web", &["10.0.9.9"])]));
    assert_eq!(found(&mut index, key, "web"), one("10.0.9.9"));
    assert_eq!(found(&mut index, key, "alias"), None);
}

#[test]
fn names_and_suffixes_may_contain_dots() {
    let mut index = Index::default();
    index.put_name(&"z".into(), &name("C1.net1", &["10.0.0.3"]));
    let key = index.put_view(&view("v", &[("z", "Br.net1")], Vec::new()));
    assert_eq!(found(&mut index, key, "c1.net1"), one("10.0.0.3"));
    assert_eq!(found(&mut index, key, "c1.net1.br.net1"), one("10.0.0.3"));
    for other in ["c1.net1.br.net1.google.com", "c1", "br.net1", "xc1.net1.br.net1", "c1.net1xbr.net1"] {
        assert_eq!(found(&mut index, key, other), None, "{other}");
    }
}

#[test]
fn a_view_sees_nothing_of_zones_it_is_not_in() {
    let mut index = Index::default();
    index.put_name(&"mine".into(), &name("web", &["10.0.0.1"]));
    index.put_name(&"other".into(), &name("secret", &["10.0.0.2"]));
    let key = index.put_view(&view("v", &[("mine", "mine")], Vec::new()));
    assert_eq!(found(&mut index, key, "secret"), None);
    assert_eq!(found(&mut index, key, "secret.other"), None);
    assert_eq!(index.name_of(key, "10.0.0.2".parse().unwrap()), None);
}

#[test]
fn a_view_may_come_before_its_zone_and_outlive_it() {
    let mut index = Index::default();
    let key = index.put_view(&view("v", &[("z", "shop")], Vec::new()));
    index.put_name(&"z".into(), &name("web", &["10.0.0.1"]));
    assert_eq!(found(&mut index, key, "web"), one("10.0.0.1"));
    index.drop_zone(&"z".into());
    assert_eq!(found(&mut index, key, "web"), None);
    index.put_name(&"z".into(), &name("web", &["10.0.0.2"]));
    assert_eq!(found(&mut index, key, "web"), one("10.0.0.2"));
}

#[test]
fn what_nobody_needs_is_forgotten() {
    let mut index = Index::default();
    index.put_view(&view("v", &[("a", "a"), ("b", "b")], Vec::new()));
    index.put_name(&"c".into(), &name("web", &["10.0.0.1"]));
    assert_eq!(index.zone_count(), 3);
    index.put_view(&view("v", &[("b", "b")], Vec::new()));
    assert_eq!(index.drop_view(&"v".into()), Some(0));
    assert_eq!(index.drop_view(&"v".into()), None);
    index.drop_name(&"c".into(), "WEB");
    index.drop_name(&"c".into(), "web");
    assert_eq!(index.zone_count(), 0);
}

#[test]
fn a_replaced_name_gives_up_its_old_addresses() {
    let mut index = Index::default();
    let key = index.put_view(&view("v", &[("z", "shop")], Vec::new()));
    index.put_name(&"z".into(), &name("web", &["10.0.0.1"]));
    index.put_name(&"z".into(), &name("web", &["10.0.0.2", "10.0.0.2"]));
    assert_eq!(found(&mut index, key, "web"), one("10.0.0.2"));
    assert_eq!(index.name_of(key, "10.0.0.1".parse().unwrap()), None);
    assert_eq!(index.name_of(key, "10.0.0.2".parse().unwrap()), Some(("web", Some("shop"))));
}

#[test]
fn a_change_of_members_does_not_start_the_rotation_again() {
    let mut index = Index::default();
    let key = index.put_view(&view("v", &[("z", "shop")], Vec::new()));
    index.put_name(&"z".into(), &name("web", &["10.0.0.1", "10.0.0.2"]));
    index.find(key, &dotted("web")).unwrap().entry.turn_v4.take(2);
    index.put_name(&"z".into(), &name("web", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
    assert_eq!(index.find(key, &dotted("web")).unwrap().entry.turn_v4.take(3), 1);
}
