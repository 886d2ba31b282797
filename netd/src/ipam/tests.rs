//! What a user notices of address management.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::error::Invalid;
use super::runs::Runs;
use super::span::Span;
use super::{Family, Holder, HostUse, IpamError, Leases, Pool, Pools, SubnetRequest, plan};
use crate::model::{Network, Subnet};
use crate::testing;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pools() -> Pools {
    Pools::new(&[], b"machine").unwrap()
}

fn network(name: &str, subnets: Vec<Subnet>) -> Network {
    Network { subnets, ..testing::network(name, &[]) }
}

fn route(to: &str, device: &str) -> HostUse {
    HostUse::route(net(to), Some(device.into())).unwrap()
}

fn request(subnet: &str) -> SubnetRequest {
    SubnetRequest { subnet: net(subnet), gateway: None, range: None, auxiliary: BTreeMap::new() }
}

fn planned(request: SubnetRequest) -> Result<Subnet, IpamError> {
    let family = Family::of(request.subnet.ip());
    plan(&[request], false, &pools(), [], &[]).map(|mut subnets| {
        subnets.retain(|subnet| Family::of(subnet.subnet.ip()) == family);
        subnets.remove(0)
    })
}

fn holder(name: &str) -> Holder {
    Holder::sandbox(&format!("id-{name}").into(), &name.into())
}

fn leases(subnet: &str, range: Option<&str>) -> Leases {
    let subnet = planned(SubnetRequest { range: range.map(net), ..request(subnet) }).unwrap();
    Leases::new(&network("n", vec![subnet]))
}

fn drained(leases: &mut Leases, family: Family) -> Vec<String> {
    let taken = std::iter::from_fn(|| leases.lease(family, &holder("h")).ok());
    taken.map(|(address, _)| address.to_string()).collect()
}

#[test]
fn the_first_network_gets_the_first_pool_and_its_gateway_the_first_address() {
    let subnets = plan(&[], true, &pools(), [], &[]).unwrap();
    assert_eq!(subnets[0].subnet, net("172.17.0.0/22"));
    assert_eq!(subnets[0].gateway, ip("172.17.0.1"));
    assert!(subnets[1].subnet.to_string().starts_with("fd"), "{:?}", subnets[1]);
    assert_eq!(subnets[1].subnet.prefix(), 64);
    assert_eq!(plan(&[], true, &pools(), [], &[]).unwrap(), subnets, "the same machine, the same prefix");
    let elsewhere = plan(&[], true, &Pools::new(&[], b"other").unwrap(), [], &[]).unwrap();
    assert_ne!(elsewhere[1].subnet, subnets[1].subnet);
}

#[test]
fn the_default_pools_hold_more_than_four_thousand_networks() {
    let mut networks: Vec<Network> = Vec::new();
    let error = loop {
        match plan(&[], false, &pools(), &networks, &[]) {
            Ok(subnets) => networks.push(network(&format!("n{}", networks.len()), subnets)),
            Err(error) => break error,
        }
        // The search itself is tested below; this many at once fill all but the last thousand.
        if networks.len() == 1 {
            for (base, size) in [("172.18.0.0/15", 22), ("172.20.0.0/14", 22), ("10.192.0.0/10", 22)] {
                let base = Span::from(net(base));
                for first in (base.first..=base.last).step_by(1 << (32 - size)) {
                    let subnet = format!("{}/{size}", Family::V4.address(first)).parse().unwrap();
                    let gateway = Family::V4.address(first + 1);
                    let subnet = Subnet { subnet, gateway, range: None, auxiliary: BTreeMap::new() };
                    networks.push(network(&format!("n{}", networks.len()), vec![subnet]));
                }
            }
        }
    };
    assert_eq!(networks.len(), 5088);
    let text = error.to_string();
    assert!(text.contains("5088 held by networks n0 (172.17.0.0/22), "), "{text}");
    assert!(text.contains("and 5078 more") && text.contains("netd network prune"), "{text}");
    assert!(text.len() < 1000, "the error is bounded: {} bytes", text.len());
}

#[test]
fn a_pool_subnet_keeps_clear_of_routes_resolvers_and_networks_of_both_families() {
    let here = plan(&[], true, &pools(), [], &[]).unwrap();
    let host = [
        route("172.17.0.0/16", "tun0"),
        HostUse::Resolver(ip("172.18.0.1")),
        route("172.18.4.0/30", "eth0"),
        route(&here[1].subnet.to_string(), "eth0"),
    ];
    let other = network("other", vec![planned(request("172.18.8.0/21")).unwrap()]);
    let subnets = plan(&[], true, &pools(), [&other], &host).unwrap();
    assert_eq!(subnets[0].subnet, net("172.18.16.0/22"));
    assert!(!Span::from(subnets[1].subnet).overlaps(&here[1].subnet.into()));
}

#[test]
fn a_preferred_size_takes_any_subnet_of_that_size() {
    let first = planned(request("0.0.0.0/24")).unwrap();
    assert_eq!(first.subnet, net("172.17.0.0/24"));
    let other = network("other", vec![first]);
    let subnets = plan(&[request("0.0.0.0/20"), request("::/72")], false, &pools(), [&other], &[]).unwrap();
    assert_eq!(subnets[0].subnet, net("172.17.16.0/20"));
    assert_eq!(subnets[1].subnet.prefix(), 72);
    let error = planned(request("0.0.0.0/6")).unwrap_err();
    assert!(matches!(error, IpamError::PoolsExhausted { size: 6, .. }), "{error}");
}

#[test]
fn configured_pools_replace_the_default_ones_of_their_family() {
    let pools = Pools::new(&[Pool { base: net("10.5.0.0/23"), size: 24 }], b"m").unwrap();
    let one = network("one", plan(&[], true, &pools, [], &[]).unwrap());
    assert_eq!(one.subnets[0].subnet, net("10.5.0.0/24"));
    assert_eq!(one.subnets.len(), 2, "IPv6 keeps its default");
    let two = network("two", plan(&[], false, &pools, [&one], &[]).unwrap());
    let text = plan(&[], false, &pools, [&one, &two], &[]).unwrap_err().to_string();
    assert!(text.contains("2 held by networks one (10.5.0.0/24), two (10.5.1.0/24)"), "{text}");
}

#[test]
fn pools_that_make_no_sense_are_refused() {
    let refused = |pools: &[(&str, u8)]| {
        let pools: Vec<Pool> = pools.iter().map(|&(base, size)| Pool { base: net(base), size }).collect();
        Pools::new(&pools, b"").unwrap_err().to_string()
    };
    assert!(refused(&[("10.0.0.0/24", 16)]).contains("cannot be cut into subnets of size /16"));
    assert!(refused(&[("10.0.0.0/24", 31)]).contains("sizes from /24 to /30"));
    assert!(refused(&[("10.0.0.1/24", 26)]).contains("host bits"));
    assert!(
        refused(&[("10.0.0.0/8", 24), ("10.1.0.0/16", 24)]).contains("10.0.0.0/8 and 10.1.0.0/16 overlap")
    );
}

#[test]
fn an_explicit_subnet_that_overlaps_names_the_network_that_holds_it() {
    let other = network("shop", vec![planned(request("10.1.0.0/16")).unwrap()]);
    for subnet in ["10.1.0.0/16", "10.0.0.0/8", "10.1.7.0/24"] {
        let error = plan(&[request(subnet)], false, &pools(), [&other], &[]).unwrap_err();
        assert!(error.to_string().contains("network shop"), "{error}");
    }
}

#[test]
fn an_explicit_subnet_on_a_route_of_the_host_is_refused_by_route_and_device() {
    let host = [route("10.8.0.0/16", "tun0"), HostUse::route(net("fd08::/48"), None).unwrap()];
    for subnet in ["10.8.0.0/16", "10.8.7.0/24", "10.0.0.0/8", "fd08::/64"] {
        let error = plan(&[request(subnet)], false, &pools(), [], &host).unwrap_err();
        assert!(matches!(error, IpamError::Routed { .. }), "{error}");
    }
    let refused = |subnet| plan(&[request(subnet)], false, &pools(), [], &host).unwrap_err().to_string();
    assert_eq!(
        refused("10.8.7.0/24"),
        "subnet 10.8.7.0/24 overlaps the host's route to 10.8.0.0/16 through tun0; choose another, or remove that route"
    );
    assert!(refused("fd08::/64").contains("route to fd08::/48; choose"), "{}", refused("fd08::/64"));
    assert!(plan(&[request("10.9.0.0/16")], false, &pools(), [], &host).is_ok());
    let resolver = [HostUse::Resolver(ip("10.8.0.53"))];
    assert!(plan(&[request("10.8.0.0/16")], false, &pools(), [], &resolver).is_ok(), "asking is not routing");
}

#[test]
fn a_route_that_stands_for_everywhere_is_in_nobodys_way() {
    for everywhere in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "160.0.0.0/5", "::/0", "2000::/3", "fc00::/7"]
    {
        assert_eq!(HostUse::route(net(everywhere), Some("tun0".into())), None, "{everywhere}");
    }
    assert!(HostUse::route(net("10.0.0.0/8"), None).is_some());
}

#[test]
fn bad_requests_are_refused_by_what_is_wrong() {
    let mut with = request("10.0.0.0/24");
    let mut cases: Vec<(SubnetRequest, &str)> = vec![
        (request("10.0.0.1/24"), "subnet 10.0.0.1/24 has host bits set; 10.0.0.0/24"),
        (request("fd00::1/64"), "host bits"),
        (request("10.0.0.0/32"), "leaves no address"),
        (request("fd00::/128"), "leaves no address"),
        (request("0.0.0.0/0"), "\"this network\""),
        (request("127.1.0.0/16"), "loopback"),
        (request("224.0.0.0/24"), "multicast"),
        (request("fe80::/64"), "link-local"),
        (request("::/128"), "leaves no address"),
    ];
    for (gateway, text) in [
        ("10.0.1.1", "gateway 10.0.1.1 is outside of subnet 10.0.0.0/24; choose one inside"),
        ("fd00::1", "outside"),
        ("10.0.0.0", "network address"),
        ("10.0.0.255", "broadcast address"),
    ] {
        cases.push((SubnetRequest { gateway: Some(ip(gateway)), ..with.clone() }, text));
    }
    for (range, text) in [
        ("10.0.1.0/25", "range 10.0.1.0/25 is outside"),
        ("10.0.0.0/23", "outside"),
        ("10.0.0.1/25", "host bits"),
        ("fd00::/64", "outside"),
    ] {
        cases.push((SubnetRequest { range: Some(net(range)), ..with.clone() }, text));
    }
    with.auxiliary.insert("printer".into(), ip("10.0.9.9"));
    cases.push((with, "auxiliary address printer 10.0.9.9 is outside"));
    for (request, wanted) in cases {
        let error = planned(request.clone()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{request:?}: {error}");
        assert!(matches!(error, IpamError::Invalid(_)), "{error:?}");
    }
    let two = [request("10.0.0.0/24"), request("10.0.1.0/24")];
    let error = plan(&two, false, &pools(), [], &[]).unwrap_err();
    assert!(matches!(error, IpamError::Invalid(Invalid::TwoSubnets { .. })), "{error}");
}

#[test]
fn small_subnets_hand_out_all_they_have() {
    assert_eq!(drained(&mut leases("10.0.0.0/30", None), Family::V4), ["10.0.0.2"]);
    assert_eq!(drained(&mut leases("10.0.0.0/31", None), Family::V4), ["10.0.0.1"]);
    assert_eq!(drained(&mut leases("fd00::/127", None), Family::V6), ["fd00::1"]);
    assert_eq!(drained(&mut leases("fd00::/126", None), Family::V6), ["fd00::2", "fd00::3"]);
}

#[test]
fn dynamic_addresses_stay_in_the_range_and_static_ones_need_not() {
    let mut leases = leases("10.0.0.0/24", Some("10.0.0.252/30"));
    leases.reserve(ip("10.0.0.7"), &holder("fixed")).unwrap();
    assert_eq!(drained(&mut leases, Family::V4), ["10.0.0.252", "10.0.0.253", "10.0.0.254"]);
}

#[test]
fn the_default_gateway_makes_way_for_auxiliary_addresses() {
    let mut request = request("10.0.0.0/29");
    request.auxiliary.insert("router".into(), ip("10.0.0.1"));
    let subnet = planned(request).unwrap();
    assert_eq!(subnet.gateway, ip("10.0.0.2"));
    let mut leases = Leases::new(&network("n", vec![subnet]));
    assert_eq!(drained(&mut leases, Family::V4), ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
}

#[test]
fn an_address_in_use_is_refused_by_its_holder() {
    let mut request = request("10.0.0.0/24");
    request.auxiliary.insert("router".into(), ip("10.0.0.5"));
    let mut leases = Leases::new(&network("shop", vec![planned(request).unwrap()]));
    leases.reserve(ip("10.0.0.9"), &holder("web")).unwrap();
    let mut refused = |address| leases.reserve(ip(address), &holder("x")).unwrap_err().to_string();
    assert_eq!(refused("10.0.0.9"), "address 10.0.0.9 on network shop is held by sandbox web");
    assert!(refused("10.0.0.1").ends_with("held by the gateway"));
    assert!(refused("10.0.0.5").ends_with("held by the auxiliary address router"));
    assert!(refused("10.0.0.255").contains("broadcast"));
    assert!(refused("10.0.1.1").contains("outside of subnet 10.0.0.0/24"));
    assert!(refused("fd00::1").contains("network shop has no IPv6 subnet"));
}

#[test]
fn an_address_is_fresh_until_somebody_gave_it_back() {
    let network = testing::network("app", &[("10.0.0.0/24", "10.0.0.1"), ("fd00::/64", "fd00::1")]);
    let mut leases = Leases::new(&network);
    let holder = Holder::sandbox(&"a".into(), &"a".into());
    for address in ["10.0.0.9", "fd00::9"].map(|text| text.parse::<IpAddr>().unwrap()) {
        leases.reserve(address, &holder).unwrap();
        assert!(leases.is_fresh(address), "held for the first time");
        leases.release(address, "a");
        leases.reserve(address, &holder).unwrap();
        assert!(!leases.is_fresh(address));
        assert!(!Leases::rebuild(&network, [], []).is_fresh(address), "who knows what was before a restart");
    }
    assert!(leases.is_fresh("10.0.0.10".parse().unwrap()));
}

#[test]
fn a_freed_address_rests_until_the_range_was_walked_once() {
    let mut leases = leases("10.0.0.0/29", None);
    let (first, _) = leases.lease(Family::V4, &holder("a")).unwrap();
    assert!(leases.release(first, "id-a"));
    assert!(!leases.release(first, "id-a"), "a second release is nothing");
    let rest: Vec<_> = (0..4).map(|_| leases.lease(Family::V4, &holder("b")).unwrap().0).collect();
    assert!(!rest.contains(&first), "{rest:?}");
    assert_eq!(leases.lease(Family::V4, &holder("b")).unwrap().0, first);
}

#[test]
fn only_the_holder_gives_an_address_back() {
    let mut leases = leases("10.0.0.0/24", None);
    let (address, _) = leases.lease(Family::V4, &holder("a")).unwrap();
    assert!(!leases.release(address, "id-b"));
    assert!(!leases.release(ip("10.0.0.1"), "id-a"), "the gateway stays");
    assert!(leases.reserve(address, &holder("b")).is_err());
}

#[test]
fn exhaustion_says_who_holds_what_in_one_bounded_line() {
    let mut leases = leases("10.0.0.0/27", None);
    for number in 0..27 {
        leases.lease(Family::V4, &holder(&format!("s{number:02}"))).unwrap();
    }
    let error = leases.lease(Family::V4, &holder("late")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no IPv4 address is left on network n in 10.0.0.0/27: 27 held by sandboxes s00, s01, s02, s03, s04, s05, \
         s06, s07, s08, s09 and 17 more, 10.0.0.29 to 10.0.0.30 kept for services; remove sandboxes, or make a network with a larger subnet"
    );
}

#[test]
fn the_table_is_rebuilt_from_the_records() {
    let subnets = plan(&[request("10.0.0.0/29")], true, &pools(), [], &[]).unwrap();
    let network = network("n", subnets);
    let mut before = Leases::new(&network);
    let mut sandboxes = Vec::new();
    for (age, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut sandbox = testing::sandbox(name);
        sandbox.created += Duration::from_secs(age as u64);
        let holder = Holder::sandbox(&sandbox.id, &sandbox.name);
        let v4 = before.lease(Family::V4, &holder).unwrap();
        let v6 = before.lease(Family::V6, &holder).unwrap();
        sandbox.endpoints.push(testing::endpoint(&network.id, &[v4, v6]));
        sandboxes.push(sandbox);
    }
    // The walk does not begin again where the oldest one has gone.
    let gone = sandboxes.remove(0);
    for address in gone.endpoints[0].addresses() {
        assert!(before.release(address, &gone.id));
    }
    let mut after = Leases::rebuild(&network, &sandboxes, []);
    assert!(after.has(Family::V6));
    for family in [Family::V4, Family::V6] {
        assert_eq!(after.lease(family, &holder("d")).unwrap(), before.lease(family, &holder("d")).unwrap());
    }
    let held = sandboxes[0].endpoints[0].addresses().next().unwrap();
    assert!(after.reserve(held, &holder("x")).unwrap_err().to_string().contains("sandbox b"));
}

#[test]
fn a_full_sixteen_bit_network_is_leased_without_delay() {
    let mut leases = leases("10.0.0.0/16", None);
    let addresses = drained(&mut leases, Family::V4);
    assert_eq!(addresses.len(), 65_533 - 256, "but for those that are kept for services");
    for address in addresses.iter().step_by(2) {
        assert!(leases.release(ip(address), "id-h"));
    }
    assert_eq!(drained(&mut leases, Family::V4).len(), addresses.len().div_ceil(2));
}

proptest! {
    #[test]
    fn nobody_shares_an_address(
        prefix in 24_u8..=29,
        ranged in any::<bool>(),
        steps in proptest::collection::vec((0_u8..4, any::<u8>()), 0..200),
    ) {
        let subnet = format!("10.0.0.0/{prefix}");
        let range = ranged.then(|| format!("10.0.0.0/{}", prefix + 1));
        let mut leases = leases(&subnet, range.as_deref());
        let hosts = Span::hosts(net(&subnet));
        let mut dynamic = Span::from(net(range.as_deref().unwrap_or(&subnet)));
        if let Some(band) = super::band::band(net(&subnet)).filter(|_| !ranged) {
            dynamic.last = band.first - 1;
        }
        let mut held: HashMap<IpAddr, Arc<str>> = HashMap::new();
        let mut recent: Vec<IpAddr> = Vec::new();
        for (step, (action, which)) in steps.into_iter().enumerate() {
            let holder = holder(&format!("s{step}"));
            match action {
                0 | 1 => if let Ok((address, _)) = leases.lease(Family::V4, &holder) {
                    prop_assert!(held.insert(address, holder.sandbox).is_none(), "{address} twice");
                    let number = super::span::number(address);
                    prop_assert!(hosts.contains(number) && dynamic.contains(number), "{address}");
                    prop_assert_ne!(address, ip("10.0.0.1"));
                    recent.push(address);
                } else {
                    let free = (hosts.first..=hosts.last.min(dynamic.last)).map(|number| Family::V4.address(number))
                        .find(|address| *address != ip("10.0.0.1") && !held.contains_key(address));
                    prop_assert_eq!(free, None, "exhausted with one free");
                },
                2 => {
                    let address = Family::V4.address(hosts.first + u128::from(which));
                    if let Ok((address, _)) = leases.reserve(address, &holder) {
                        prop_assert!(held.insert(address, holder.sandbox).is_none(), "{address} twice");
                    }
                }
                _ => {
                    let address = held.keys().nth(usize::from(which) % held.len().max(1)).copied();
                    if let Some(address) = address {
                        let sandbox = held.remove(&address).unwrap();
                        prop_assert!(leases.release(address, &sandbox));
                    }
                }
            }
        }
        // Walking forward: between two dynamic leases of one address, the walk came round once.
        for (index, address) in recent.iter().enumerate() {
            if let Some(again) = recent[index + 1..].iter().position(|other| other == address) {
                let between: HashSet<_> = recent[index + 1..index + 1 + again].iter().collect();
                let wrapped = recent[index..=index + 1 + again].windows(2).any(|pair| pair[1] <= pair[0]);
                prop_assert!(wrapped, "{address} again after {between:?}");
            }
        }
    }

    #[test]
    fn runs_are_the_set_they_stand_for(steps in proptest::collection::vec((any::<bool>(), 0_u128..64, 0_u128..6), 0..80)) {
        let mut runs = Runs::default();
        let mut set = std::collections::BTreeSet::new();
        for (add, first, length) in steps {
            if add {
                runs.insert(first, first + length);
                set.extend(first..=first + length);
            } else {
                runs.remove(first);
                set.remove(&first);
            }
            for number in 0..72 {
                let free = (number..).find(|candidate| !set.contains(candidate));
                prop_assert_eq!(runs.next_free(number), free);
            }
            prop_assert_eq!(runs.obstacle(first, first + length).is_some(), set.range(first..=first + length).next().is_some());
        }
    }

    #[test]
    fn planned_subnets_never_touch_what_is_taken(
        taken in proptest::collection::vec((any::<u16>(), 12_u8..=32), 0..30),
        size in 16_u8..=29,
    ) {
        let spaces: Vec<IpNetwork> = taken.iter().map(|&(low, prefix)| {
            let address = Family::V4.address(0xac11_0000 + u128::from(low) * 16);
            super::span::canonical(IpNetwork::new(address, prefix).unwrap())
        }).collect();
        let host: Vec<HostUse> = spaces.iter().filter_map(|&space| HostUse::route(space, None)).collect();
        let subnets = plan(&[request(&format!("0.0.0.0/{size}"))], false, &pools(), [], &host).unwrap();
        let span = Span::from(subnets[0].subnet);
        prop_assert_eq!(subnets[0].subnet.prefix(), size);
        for &space in &spaces {
            prop_assert!(!span.overlaps(&space.into()), "{} on {}", subnets[0].subnet, space);
        }
        // A subnet that the user names is refused exactly when it touches a route.
        for asked in ["172.17.0.0/16", "172.17.3.0/24", "172.18.0.0/15"] {
            let clear = !spaces.iter().any(|&space| Span::from(space).overlaps(&net(asked).into()));
            let planned = plan(&[request(asked)], false, &pools(), [], &host);
            prop_assert_eq!(planned.is_ok(), clear, "{}: {:?}", asked, planned);
        }
    }
}

#[test]
fn services_have_addresses_of_their_own_that_rest_when_they_are_given_back() {
    let mut leases = leases("10.0.0.0/27", None);
    assert_eq!(drained(&mut leases, Family::V4).last().unwrap(), "10.0.0.28", "two are kept for services");
    let service = Holder { is_service: true, ..holder("shop") };
    let vip =
        |leases: &mut Leases| leases.lease_vip(Family::V4, &service).map(|(address, _)| address.to_string());
    assert_eq!(vip(&mut leases).unwrap(), "10.0.0.29");
    leases.release(ip("10.0.0.29"), "id-shop");
    assert_eq!(vip(&mut leases).unwrap(), "10.0.0.30", "the other one first");
    assert_eq!(vip(&mut leases).unwrap(), "10.0.0.29");
    let full = vip(&mut leases).unwrap_err().to_string();
    assert!(full.contains("10.0.0.29 to 10.0.0.30 are kept for services"), "{full}");
    let taken = leases.reserve(ip("10.0.0.30"), &holder("x")).unwrap_err().to_string();
    assert!(taken.contains("held by service shop"), "{taken}");
    let none = vip(&mut self::leases("10.0.0.0/29", None)).unwrap_err().to_string();
    assert!(none.contains("too small") && none.contains("--vip"), "{none}");
}
