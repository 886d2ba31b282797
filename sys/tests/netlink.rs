//! Links, addresses, routes and neighbours, checked with `ip` as a user would.

mod lab;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use lab::{machine, run};
use netd_sys::netlink::addr::{self, Addr};
use netd_sys::netlink::link::{self, Bridge, Peer, Port, Veth};
use netd_sys::netlink::neigh::{self, Neighbour};
use netd_sys::netlink::route::{self, Route};
use netd_sys::netlink::{Op, Rtnl};
use netd_sys::netns::Netns;

const GROUP: u32 = 0x6e65;

fn bridge(rtnl: &mut Rtnl) -> u32 {
    let spec = Bridge { name: "nd-test", mac: Some([2, 0, 0, 0, 0, 1]), mtu: None, group: GROUP };
    rtnl.transact(vec![link::bridge(&spec)]).expect("bridge");
    rtnl.link("nd-test").expect("look up").expect("exists").index
}

fn pair<'a>(name: &'a str, master: u32, netns: &'a Netns) -> Veth<'a> {
    let peer = Peer { netns: netns.as_fd(), name: "eth0", index: Some(2), mac: Some([2, 0, 0, 0, 0, 2]) };
    Veth { name, master: Some(master), group: GROUP + 1, mtu: Some(1400), gso: None, peer }
}

/// All that a sandbox's end of a pair needs, in one batch.
fn inside() -> Vec<Op<'static>> {
    let v4 = "10.9.0.2/24".parse().expect("address");
    let v6 = "fd09::2/64".parse().expect("address");
    vec![
        link::up(1),
        link::no_link_local(2),
        link::up(2),
        addr::add(Addr { link: 2, address: v4 }),
        addr::add(Addr { link: 2, address: v6 }),
        route::add(&Route::default_via("10.9.0.1".parse().expect("gateway"), 2)),
        route::add(&Route::default_via("fd09::1".parse().expect("gateway"), 2)),
    ]
}

#[test]
fn a_pair_is_made_across_namespaces_and_carries_traffic_at_once() {
    machine(|| {
        let web = Netns::create_at(Path::new("/run/netns/web")).expect("netns");
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        let gateway = |text: &str| addr::add(Addr { link: master, address: text.parse().expect("address") });
        rtnl.transact(vec![
            gateway("10.9.0.1/24"),
            gateway("fd09::1/64"),
            link::veth(&pair("nv1", master, &web)),
        ])
        .expect("host's side");
        Rtnl::open_in(&web).expect("open").transact(inside()).expect("sandbox's side");
        rtnl.transact(vec![link::up("nv1")]).expect("near end");

        let seen = run("ip -n web -o link show eth0");
        assert!(seen.contains("2: eth0@"), "{seen}");
        assert!(seen.contains("mtu 1400") && seen.contains("02:00:00:00:00:02"), "{seen}");
        assert!(run("ip -o link show nv1").contains("master nd-test"), "in the bridge");
        assert_eq!(run("ip -o addr show nv1"), "", "a port has no addresses of its own");
        let addresses = run("ip -n web -o addr show eth0");
        assert!(!addresses.contains("fe80") && !addresses.contains("tentative"), "{addresses}");
        assert!(run("ip -n web route").contains("default via 10.9.0.1 dev eth0"));
        run("ip netns exec web ping -q -c1 -W2 10.9.0.1");
        run("ip netns exec web ping -q -c1 -W2 fd09::1");

        let near = rtnl.link("nv1").expect("look up").expect("exists");
        assert_eq!((near.kind.as_deref(), near.group, near.master), (Some("veth"), GROUP + 1, Some(master)));
        assert_eq!((near.mtu, near.up, near.running, near.peer), (1400, true, true, Some(2)));
        assert!(near.peer_netns.is_some());
        assert_eq!(rtnl.link(near.index).expect("look up").as_ref(), Some(&near));
        assert!(rtnl.links().expect("list").contains(&near));
        assert_eq!(rtnl.link("nosuch").expect("look up"), None);
    });
}

#[test]
fn a_pair_with_an_mtu_too_small_for_ipv6_is_made_all_the_same() {
    machine(|| {
        let web = Netns::create_at(Path::new("/run/netns/web")).expect("netns");
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        rtnl.transact(vec![link::veth(&Veth { mtu: Some(600), ..pair("nv1", master, &web) })]).expect("pair");
        Rtnl::open_in(&web)
            .expect("open")
            .transact(vec![link::no_link_local(2), link::up(2)])
            .expect("far end");
        rtnl.transact(vec![link::up("nv1")]).expect("near end");
        assert!(rtnl.link("nv1").expect("look up").expect("exists").running);
    });
}

#[test]
fn an_error_names_the_deed_and_the_object_and_what_the_kernel_said() {
    machine(|| {
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        let text = |failed: Result<(), netd_sys::KernelError>| {
            let error = failed.expect_err("refused");
            format!("{error}: {}", error.source)
        };
        let again = Bridge { name: "nd-test", mac: None, mtu: None, group: GROUP };
        assert_eq!(
            text(rtnl.transact(vec![link::bridge(&again)])),
            "cannot create the bridge nd-test: File exists (os error 17)"
        );
        assert_eq!(
            text(rtnl.transact(vec![link::up("nosuch")])),
            "cannot bring up the link nosuch: No such device (os error 19)"
        );
        let lost = Route::default_via("10.77.0.1".parse().expect("gateway"), master);
        let said = text(rtnl.transact(vec![route::add(&lost)]));
        assert!(said.starts_with("cannot add the route to 0.0.0.0/0 via 10.77.0.1 through link"), "{said}");
        assert!(
            said.contains("(Nexthop has invalid gateway)") || said.contains("(Device is not up)"),
            "{said}"
        );
    });
}

#[test]
fn a_batch_goes_on_after_a_failure_and_says_which_failed() {
    machine(|| {
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        let results = rtnl
            .attempt(vec![link::mtu(master, 1300), link::up("nosuch"), link::alias(master, "netd: test")])
            .expect("answered");
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        let found = rtnl.link(master).expect("look up").expect("exists");
        assert_eq!((found.mtu, found.alias.as_deref()), (1300, Some("netd: test")));

        let gone = || link::delete("nosuch").forgiving(&[libc::ENODEV]);
        rtnl.transact(vec![gone(), gone()]).expect("forgiven");
        assert_eq!(rtnl.attempt(Vec::new()).expect("nothing to do").len(), 0);
    });
}

#[test]
fn more_changes_than_fit_one_call_all_arrive() {
    machine(|| {
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        let entry = |host: u32| Neighbour {
            link: master,
            address: std::net::Ipv4Addr::from(0x0a09_0000 + host).into(),
            mac: [2, 0, 0, 0, 1, 1],
            permanent: true,
        };
        rtnl.transact((1..=3000).map(|host| neigh::replace(&entry(host))).collect()).expect("add");
        let found = rtnl.neighbours().expect("list");
        assert!((1..=3000).all(|host| found.contains(&entry(host))), "{}", found.len());
        rtnl.transact((1..=3000).map(|host| neigh::delete(&entry(host))).collect()).expect("delete");
        assert!(!rtnl.neighbours().expect("list").iter().any(|n| n.permanent && n.link == master));
    });
}

#[test]
fn a_group_of_links_goes_at_once_and_only_that_group() {
    machine(|| {
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        let names: Vec<String> = (0..20).map(|n| format!("nv{n}")).collect();
        let homes: Vec<Netns> = (0..20)
            .map(|n| Netns::create_at(Path::new(&format!("/run/netns/n{n}"))).expect("netns"))
            .collect();
        let made =
            names.iter().zip(&homes).map(|(name, home)| link::veth(&pair(name, master, home))).collect();
        rtnl.transact(made).expect("pairs");
        rtnl.transact(vec![link::delete_group(GROUP + 1)]).expect("delete");
        let left: Vec<String> = rtnl.links().expect("list").into_iter().map(|link| link.name).collect();
        assert_eq!(left, ["lo", "nd-test"]);
        assert!(!run("ip -n n7 link").contains("eth0"), "the other end goes too");
        let none = rtnl.transact(vec![link::delete_group(GROUP + 1)]).expect_err("an empty group");
        assert_eq!(none.errno(), Some(libc::ENODEV));
        assert!(rtnl.transact(vec![link::delete_group(0)]).is_err(), "group 0 is everybody's");
    });
}

#[test]
fn a_port_leaves_its_bridge_and_takes_settings() {
    machine(|| {
        let web = Netns::create_at(Path::new("/run/netns/web")).expect("netns");
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        rtnl.transact(vec![
            link::veth(&pair("nv1", master, &web)),
            link::port("nv1", Port { isolated: Some(true), hairpin: Some(true), ..Port::default() }),
        ])
        .expect("pair");
        let shown = run("bridge -d link show dev nv1");
        assert!(
            shown.contains("isolated on") && shown.contains("hairpin on") && shown.contains("learning on"),
            "{shown}"
        );

        rtnl.transact(vec![link::nomaster("nv1"), link::down("nv1"), link::group("nv1", 7)]).expect("leave");
        let near = rtnl.link("nv1").expect("look up").expect("exists");
        assert_eq!((near.master, near.up, near.group), (None, false, 7));
        rtnl.transact(vec![link::master("nv1", master), link::rename(near.index, "nv2")])
            .expect("back, renamed");
        assert_eq!(rtnl.link("nv2").expect("look up").expect("exists").master, Some(master));
    });
}

#[test]
fn big_packets_are_set_on_both_ends() {
    machine(|| {
        let web = Netns::create_at(Path::new("/run/netns/web")).expect("netns");
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        let big = Veth { gso: Some(196_608), ..pair("nv1", master, &web) };
        rtnl.transact(vec![link::veth(&big), link::gso(master, 196_608)]).expect("pair");
        for command in ["ip -d link show nv1", "ip -d link show nd-test", "ip -n web -d link show eth0"] {
            assert!(run(command).contains("gso_max_size 196608"), "{command}");
        }
        // Both families, which the program does not show.
        let sizes = |rtnl: &mut Rtnl, name: &str| {
            rtnl.link(name).expect("look up").expect("exists").gso.expect("known")
        };
        assert_eq!(
            (sizes(&mut rtnl, "nv1"), sizes(&mut rtnl, "nd-test"), sizes(&mut rtnl, "lo")),
            (196_608, 196_608, 65_536)
        );
        rtnl.transact(vec![link::gso("nv1", 65_536)]).expect("back");
        assert_eq!(sizes(&mut rtnl, "nv1"), 65_536);
    });
}

#[test]
fn routes_are_added_replaced_listed_and_removed() {
    machine(|| {
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        let net = |text: &str| text.parse().expect("network");
        rtnl.transact(vec![addr::add(Addr { link: master, address: net("10.9.0.1/24") })]).expect("address");
        assert!(
            rtnl.addresses().expect("list").contains(&Addr { link: master, address: net("10.9.0.1/24") })
        );

        let device = Route::on_link(net("172.30.0.0/16"), master);
        let onlink = Route { onlink: true, ..Route::default_via("169.254.1.1".parse().expect("ip"), master) };
        let far = Route { table: 1000, metric: Some(5), ..Route::on_link(net("fd77::/48"), master) };
        rtnl.transact(vec![route::add(&device), route::add(&onlink), route::add(&far)]).expect("add");
        assert!(run("ip route").contains("default via 169.254.1.1 dev nd-test proto static onlink"));
        assert!(run("ip -6 route show table 1000").contains("fd77::/48 dev nd-test"));

        let better =
            Route { gateway: Some("10.9.0.7".parse().expect("ip")), onlink: false, ..onlink.clone() };
        rtnl.transact(vec![route::replace(&better)]).expect("replace");
        run("ip route add 192.0.2.0/24 nexthop via 10.9.0.8 nexthop via 10.9.0.9");
        run("ip route add blackhole 198.51.100.0/24");
        let all = rtnl.routes().expect("list");
        assert!(all.contains(&device) && all.contains(&better) && all.contains(&far), "{all:#?}");
        let find = |text: &str| all.iter().find(|route| route.destination == net(text)).expect(text);
        assert_eq!(find("192.0.2.0/24").gateway, Some("10.9.0.8".parse().expect("ip")));
        assert_eq!(find("192.0.2.0/24").link, Some(master));
        assert_eq!(find("198.51.100.0/24").kind, route::Kind::Refused);
        assert_eq!(find("10.9.0.1/32").kind, route::Kind::Local);

        rtnl.transact(vec![route::delete(&device), route::delete(&better), route::delete(&far)])
            .expect("delete");
        assert!(!run("ip route").contains("172.30"));
        let twice = rtnl.transact(vec![route::delete(&device)]).expect_err("gone");
        assert_eq!(twice.errno(), Some(libc::ESRCH));
    });
}

#[test]
fn a_route_to_an_own_address_says_from_which_other_it_is_asked() {
    machine(|| {
        let mut rtnl = Rtnl::open().expect("open");
        let master = bridge(&mut rtnl);
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let on = |text: &str| Addr { link: master, address: text.parse().expect("network") };
        let all = ["10.9.0.1/24", "10.9.0.200/32", "fd77::1/64", "fd77::200/128"];
        rtnl.transact(all.map(|text| addr::add(on(text))).into()).expect("addresses");
        let v4 = Route::to_own(ip("10.9.0.200"), ip("10.9.0.1"), master);
        let v6 = Route::to_own(ip("fd77::200"), ip("fd77::1"), master);
        rtnl.transact(vec![route::prepend(&v4), route::replace(&v6)]).expect("routes");
        // The kernel makes its own a moment after the address.
        let mut kernels = || rtnl.transact(vec![route::delete_kernels(&v6)]);
        while kernels().is_err_and(|error| error.errno() == Some(libc::ESRCH)) {
            std::thread::yield_now();
        }
        assert!(run("ip route get 10.9.0.200").contains("src 10.9.0.1"));
        assert!(run("ip -6 route get fd77::200").contains("src fd77::1"));
        let found = rtnl.local_routes(master).expect("list");
        assert!(found.contains(&v4) && found.iter().any(|route| route.source == v6.source), "{found:#?}");
        assert!(found.iter().all(|route| route.link == Some(master) && route.kind == route::Kind::Local));

        let twice = rtnl.transact(vec![route::prepend(&v4)]).expect_err("it is there");
        assert_eq!(twice.errno(), Some(libc::EEXIST));
        rtnl.transact(vec![route::delete(&v4), route::delete(&v6)]).expect("delete");
        assert!(run("ip route get 10.9.0.200").contains("src 10.9.0.200"), "the kernel's is left");
        assert!(!run("ip -6 route show table local").contains("fd77::200"));
    });
}
