//! SRV records and names with very many addresses.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::rr::rdata::SRV;

use super::*;
use crate::table::{Name as Entry, Srv};

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
    Srv { priority, weight, port, target: target.into() }
}

fn named(name: &str) -> Entry {
    Entry { name: name.into(), ..Entry::default() }
}

fn at(name: &str, addresses: &[&str]) -> Entry {
    Entry { addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(), ..named(name) }
}

fn shop() -> (Index, ViewKey) {
    let records = vec![
        srv(1, 5, 8080, "Web-1"),
        srv(1, 5, 8081, "web-1"),
        srv(2, 0, 80, "web-2"),
        srv(3, 0, 443, "Up.Example."),
    ];
    index_of([
        Entry { srv: records, ..named("_http._tcp.web") },
        at("web-1", &["10.0.0.1", "fd00::1"]),
        at("web-2", &["10.0.0.2"]),
    ])
}

fn services(message: &Message) -> Vec<(String, SRV)> {
    let of = |record: &Record| match &record.data {
        RData::SRV(srv) => (record.name.to_string(), srv.clone()),
        other => panic!("{other}"),
    };
    message.answers.iter().map(of).collect()
}

#[test]
fn a_service_is_found_with_the_addresses_of_its_targets() {
    let (mut index, view) = shop();
    let got = reply(&mut index, view, &question("_HTTP._tcp.Web.shop.", RecordType::SRV));
    let name = |name: &str| Name::from_ascii(name).unwrap();
    let expected = [
        SRV::new(1, 5, 8080, name("Web-1.shop.")),
        SRV::new(1, 5, 8081, name("web-1.shop.")),
        SRV::new(2, 0, 80, name("web-2.shop.")),
        SRV::new(3, 0, 443, name("Up.Example.")),
    ];
    let expected: Vec<(String, SRV)> =
        expected.into_iter().map(|srv| ("_HTTP._tcp.Web.shop.".to_owned(), srv)).collect();
    assert_eq!(services(&got), expected);
    assert!(got.answers.iter().all(|record| record.ttl <= 5));
    let SRV { target, .. } = &services(&got)[0].1;
    assert!(target.eq_case(&name("Web-1.shop.")), "{target}");
    let mut additional: Vec<String> =
        got.additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    additional.sort();
    assert_eq!(additional, ["Web-1.shop. 10.0.0.1", "Web-1.shop. fd00::1", "web-2.shop. 10.0.0.2"]);
}

#[test]
fn other_types_of_a_service_and_services_of_other_names_have_no_data() {
    let (mut index, view) = shop();
    let empty = (ResponseCode::NoError, 0);
    assert_eq!(code_of(&mut index, view, "_http._tcp.web.", RecordType::A), empty);
    assert_eq!(code_of(&mut index, view, "web-1.", RecordType::SRV), empty);
    assert_eq!(code_of(&mut index, view, "_http._tcp.web.", RecordType::ANY), (ResponseCode::NoError, 4));
}

#[test]
fn a_name_without_anything_is_known_all_the_same() {
    let (mut index, view) = index_of([named("idle")]);
    for rtype in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::CNAME, RecordType::ANY] {
        assert_eq!(code_of(&mut index, view, "idle.shop.", rtype), (ResponseCode::NoError, 0), "{rtype}");
    }
}

#[test]
fn a_target_that_cannot_be_said_is_left_out() {
    let records = vec![srv(0, 0, 1, &"x".repeat(64)), srv(0, 0, 2, "web")];
    let (mut index, view) = index_of([Entry { srv: records, ..named("s") }, at("web", &["10.0.0.1"])]);
    let got = reply(&mut index, view, &question("s.", RecordType::SRV));
    assert_eq!((got.answers.len(), got.additionals.len()), (1, 1));
}

fn crowd(count: u32) -> Entry {
    let addresses = (0..count).map(|n| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n))).collect();
    Entry { addresses, ..named("tasks") }
}

#[test]
fn all_of_a_crowd_that_tcp_can_carry_is_in_one_answer() {
    let (mut index, view) = index_of([crowd(5_000)]);
    let message = question("tasks.", RecordType::A).to_vec().unwrap();
    let bytes = ask(&mut index, view, &message, Some(65_535)).unwrap();
    let got = Message::from_vec(&bytes).unwrap();
    assert!(bytes.len() > 65_500 && got.answers.len() > 4_000, "{} in {}", got.answers.len(), bytes.len());
    assert!(!got.metadata.truncation, "nobody could ask for more");
}

/// Far from a measurement: what grows with the square of the addresses takes minutes here.
#[test]
fn work_grows_with_the_addresses_of_one_name_only() {
    let begun = Instant::now();
    let (mut index, view) = index_of([]);
    index.put_name(&"z".into(), &crowd(1_000_000));
    let message = question("tasks.", RecordType::A).to_vec().unwrap();
    for _ in 0..1_000 {
        ask(&mut index, view, &message, None).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn everybody_is_in_cut_answers_equally_often(count in 30_u32..200, rounds in 1_usize..3) {
        let (mut index, view) = index_of([crowd(count)]);
        let message = question("tasks.", RecordType::A);
        let mut seen: HashMap<IpAddr, usize> = HashMap::new();
        for _ in 0..count as usize * rounds {
            let got = reply(&mut index, view, &message);
            prop_assert!(got.metadata.truncation || got.answers.len() == count as usize);
            for record in &got.answers {
                *seen.entry(record.data.ip_addr().unwrap()).or_default() += 1;
            }
        }
        let shares: BTreeSet<usize> = seen.values().copied().collect();
        prop_assert_eq!((shares.len(), seen.len()), (1, count as usize));
    }

    #[test]
    fn each_service_comes_first_equally_often_and_hickory_reads_it(
        targets in proptest::collection::vec(0_u8..4, 1..12),
        rounds in 1_usize..4,
        v6 in 0_u8..3,
    ) {
        let records: Vec<Srv> = (1..).zip(&targets).map(|(port, target)| srv(0, 0, port, &format!("t{target}"))).collect();
        let addresses: Vec<String> = (0..v6).map(|n| format!("fd00::{n}")).chain(["10.0.0.1".to_owned()]).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let names = (0..4).map(|n| at(&format!("t{n}"), &addresses));
        let (mut index, view) = index_of(names.chain([Entry { srv: records.clone(), ..named("s") }]));
        let message = question("s.", RecordType::SRV).to_vec().unwrap();
        let mut first: Vec<u16> = Vec::new();
        for _ in 0..targets.len() * rounds {
            let got = Message::from_vec(&ask(&mut index, view, &message, Some(4096)).unwrap()).unwrap();
            prop_assert_eq!(got.answers.len(), records.len());
            first.push(services(&got)[0].1.port);
            let owners: BTreeSet<Name> = got.additionals.iter().map(|record| record.name.clone()).collect();
            let expected: BTreeSet<Name> = services(&got).into_iter().map(|(_, srv)| srv.target).collect();
            prop_assert_eq!(&owners, &expected);
            prop_assert_eq!(got.additionals.len(), expected.len() * addresses.len());
        }
        first.sort_unstable();
        let expected: Vec<u16> = records.iter().flat_map(|srv| std::iter::repeat_n(srv.port, rounds)).collect();
        prop_assert_eq!(first, expected);
    }

    #[test]
    fn services_are_cut_to_whole_records(count in 1_u16..400, payload in 512_u16..4096, stream: bool) {
        let records = (0..count).map(|n| srv(0, n, 80, &format!("task-{n}"))).collect();
        let names = (0..count).map(|n| at(&format!("task-{n}"), &["10.0.0.1", "fd00::1"]));
        let (mut index, view) = index_of(names.chain([Entry { srv: records, ..named("s") }]));
        let mut message = question("s.", RecordType::SRV);
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
        let limit = if stream { 65_535 } else { usize::from(payload) };
        let bytes = ask(&mut index, view, &message.to_vec().unwrap(), Some(limit)).unwrap();
        prop_assert!(bytes.len() <= limit);
        let got = Message::from_vec(&bytes).unwrap();
        let whole = got.answers.len() == usize::from(count);
        prop_assert_eq!(got.metadata.truncation, !whole && !stream);
        prop_assert!(whole || got.additionals.is_empty());
        prop_assert!(whole || bytes.len() + 64 > limit, "{} of {limit}", bytes.len());
    }
}
