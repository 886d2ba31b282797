//! Tunnels, forwarding entries and ports of a bridge, checked with `ip` and `bridge` as a user would, and with packets.

mod lab;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use lab::{attempt, machine, run};
use netd_sys::bpf::overlay::{self, Shortcut, Station};
use netd_sys::netlink::addr::{self, Addr};
use netd_sys::netlink::link::{self, Bridge, Peer, Port, Veth};
use netd_sys::netlink::neigh::{self, Neighbour};
use netd_sys::netlink::vxlan::{self, Tunnel, Vxlan};
use netd_sys::netlink::{Op, Rtnl, fdb};
use netd_sys::netns::Netns;
use netd_sys::offload;

const GROUP: u32 = 0x6e65;
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn tunnel(local: &str) -> Tunnel {
    Tunnel { vni: 4096, local: ip(local), port: 4789 }
}

fn device(name: &str, tunnel: Tunnel, master: Option<u32>) -> Op<'static> {
    let unfragmented = master.is_none();
    vxlan::vxlan(&Vxlan { name, tunnel, mac: None, mtu: 1450, group: GROUP, master, unfragmented })
}

#[test]
fn a_tunnel_is_made_as_told_and_reads_back() {
    machine(|| {
        let mut rtnl = Rtnl::open().expect("open");
        for (name, tunnel) in
            [("nx4", tunnel("192.0.2.1")), ("nx6", Tunnel { vni: 4097, ..tunnel("2001:db8::1") })]
        {
            rtnl.transact(vec![device(name, tunnel, None)]).expect("made");
            assert_eq!(rtnl.link(name).expect("look up").expect("exists").tunnel, Some(tunnel));
        }
        let shown = run("ip -d link show nx4");
        for wanted in [
            "mtu 1450",
            "vxlan id 4096 local 192.0.2.1",
            "dstport 4789",
            "nolearning",
            "noudpcsum",
            "ttl 64",
            "df set",
        ] {
            assert!(shown.contains(wanted), "{wanted}: {shown}");
        }
        let shown = run("ip -d link show nx6");
        for wanted in ["local 2001:db8::1", " udpcsum noudp6zerocsumtx noudp6zerocsumrx"] {
            assert!(shown.contains(wanted), "{wanted}: {shown}");
        }
        let twice =
            rtnl.transact(vec![device("nx5", tunnel("192.0.2.9"), None), link::up("nx4"), link::up("nx5")]);
        let error = twice.expect_err("one network number a port and host").to_string();
        assert!(error.starts_with("cannot create the VXLAN device nx5"), "{error}");

        offload::set_checksums("nx4", false).expect("off");
        assert!(run("ethtool -k nx4").contains("tx-checksum-ip-generic: off"));
        offload::set_checksums("nx4", true).expect("on");
        assert!(run("ethtool -k nx4").contains("tx-checksum-ip-generic: on"));
        let none = offload::set_checksums("nosuch", true).expect_err("no such link");
        assert_eq!(none.to_string(), "cannot set checksums of the link nosuch");
    });
}

#[test]
fn forwarding_entries_are_set_listed_and_removed_repeatedly() {
    machine(|| {
        let mut rtnl = Rtnl::open().expect("open");
        rtnl.transact(vec![link::bridge(&Bridge { name: "nd-1", mac: None, mtu: None, group: GROUP })])
            .expect("bridge");
        let bridge = rtnl.link("nd-1").expect("look up").expect("exists").index;
        rtnl.transact(vec![device("nx1", tunnel("192.0.2.1"), Some(bridge))]).expect("tunnel");
        let port = rtnl.link("nx1").expect("look up").expect("exists").index;
        let [first, second] = MACS;
        let set = |to: &str| fdb::remote(port, first, ip(to));
        rtnl.transact(vec![
            set("192.0.2.2"),
            set("192.0.2.2"),
            set("192.0.2.3"),
            fdb::remote(port, second, ip("192.0.2.2")),
        ])
        .expect("set");
        let shown = run("bridge fdb show dev nx1");
        assert!(shown.contains("02:00:00:00:01:01 master nd-1 static"), "{shown}");
        assert!(shown.contains("02:00:00:00:01:01 dst 192.0.2.3 self static"), "{shown}");
        assert_eq!(shown.matches("02:00:00:00:01:01").count(), 2, "moved, not added: {shown}");
        let found = rtnl.forwarding(port).expect("list");
        let entry = |mac, remote| fdb::Entry { link: port, mac, remote, fixed: true };
        for wanted in [
            entry(first, None),
            entry(first, Some(ip("192.0.2.3"))),
            entry(second, None),
            entry(second, Some(ip("192.0.2.2"))),
        ] {
            assert!(found.contains(&wanted), "{wanted:?} in {found:?}");
        }
        assert_eq!(found.iter().filter(|entry| entry.fixed).count(), 4, "its own address is none: {found:?}");

        run("bridge fdb del 02:00:00:00:01:02 dev nx1 master");
        rtnl.transact(vec![fdb::no_remote(port, second), fdb::no_remote(port, second)])
            .expect("half of it was gone");
        assert!(rtnl.forwarding(port).expect("list").iter().all(|entry| entry.mac != second));

        let permanent = |mac| Neighbour { link: bridge, address: ip("10.9.0.7"), mac, permanent: true };
        rtnl.transact(vec![neigh::replace(&permanent(first)), neigh::replace(&permanent(second))])
            .expect("neighbour");
        // The kernel has entries of its own, for multicast.
        let mut set = |link| {
            let found = rtnl.neighbours_of(link).expect("list");
            found.into_iter().filter(|neighbour| neighbour.permanent).collect::<Vec<_>>()
        };
        assert_eq!((set(bridge), set(port)), (vec![permanent(second)], vec![]));
    });
}

/// A host of two, joined by a wire of the test's: a bridge with the same address as the other's, a tunnel and a sandbox.
fn host(name: &str, own: usize, other: usize, underlay: (&str, &str)) {
    let home = Netns::open(Path::new(&format!("/run/netns/{name}"))).expect("host");
    let sandbox = Netns::create_at(Path::new(&format!("/run/netns/{name}-box"))).expect("sandbox");
    let mut rtnl = Rtnl::open_in(&home).expect("open");
    let mac = Some([2, 0, 0, 0, 0, 9]);
    rtnl.transact(vec![link::bridge(&Bridge { name: "nd-1", mac, mtu: Some(1430), group: GROUP })])
        .expect("bridge");
    let bridge = rtnl.link("nd-1").expect("look up").expect("exists").index;
    let peer = Peer { netns: sandbox.as_fd(), name: "eth0", index: Some(2), mac: Some(MACS[own]) };
    let pair = Veth { name: "nv1", master: Some(bridge), group: GROUP, mtu: Some(1430), gso: None, peer };
    let unlearned = Port { learning: Some(false), locked: Some(true), ..Port::default() };
    let quiet = Port { learning: Some(false), flood: Some(false), answer_for: Some(true), ..Port::default() };
    rtnl.transact(vec![
        link::veth(&pair),
        link::port("nv1", unlearned),
        device("nx1", tunnel(underlay.0), Some(bridge)),
        link::port("nx1", quiet),
    ])
    .expect("links");
    let index = |rtnl: &mut Rtnl, name: &str| rtnl.link(name).expect("look up").expect("exists").index;
    let (near, port) = (index(&mut rtnl, "nv1"), index(&mut rtnl, "nx1"));
    let addresses = |place: usize| [format!("10.9.0.{}", place + 2), format!("fd09::{}", place + 2)];
    let mut inside = vec![link::up(1), link::no_link_local(2), link::up(2)];
    for (address, prefix) in addresses(own).iter().zip([24, 64]) {
        let address = format!("{address}/{prefix}").parse().expect("address");
        inside.push(addr::add(Addr { link: 2, address }));
    }
    let link_local = format!("fe80::ff:fe00:10{}/64", own + 1).parse().expect("address");
    inside.push(addr::add(Addr { link: 2, address: link_local }));
    Rtnl::open_in(&sandbox).expect("open").transact(inside).expect("inside");
    let mut ops = vec![fdb::local(near, MACS[own]), fdb::remote(port, MACS[other], ip(underlay.1))];
    ops.extend(addresses(other).iter().map(|text| {
        neigh::replace(&Neighbour { link: bridge, address: ip(text), mac: MACS[other], permanent: true })
    }));
    ops.extend([link::no_link_local("nx1"), link::up("nx1"), link::up("nv1"), link::up("nd-1")]);
    rtnl.transact(ops).expect("joined");
}

fn wire(v6: bool) {
    let (one, two) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
    for (name, address) in [("one", one), ("two", two)] {
        run(&format!("ip netns add {name}; ip -n {name} link set lo up"));
        run(if name == "one" { "ip link add u1 type veth peer name u2" } else { "true" });
        let device = if name == "one" { "u1" } else { "u2" };
        run(&format!("ip link set {device} netns {name}; ip -n {name} link set {device} up"));
        let length = if v6 { "64 nodad" } else { "24" };
        run(&format!("ip -n {name} addr add {address}/{length} dev {device}"));
    }
}

/// How many frames the rules of the host's bridge have seen.
fn bridged(host: &str) -> u64 {
    let shown = run(&format!("ip netns exec {host} nft list chain bridge seen frames"));
    let words: Vec<&str> = shown.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").expect("a counter");
    words[at + 1].parse().expect("a number")
}

/// Has a host's tunnel and port take the short way, for as long as what is returned is open.
fn shorten(host: &str, own: usize, other: usize) -> (Shortcut, Vec<OwnedFd>) {
    let home = Netns::open(Path::new(&format!("/run/netns/{host}"))).expect("host");
    let join = || {
        let mut rtnl = Rtnl::open().expect("open");
        let mut index = |name: &str| rtnl.link(name).expect("look up").expect("exists").index;
        let (port, tunnel) = (index("nv1"), index("nx1"));
        let shortcut = Shortcut::open().expect("loaded");
        let v4 = format!("10.9.0.{}", own + 2).parse().expect("address");
        let v6 = format!("fd09::{}", own + 2).parse().expect("address");
        let spec = overlay::Port { network: tunnel, mac: MACS[own], v4: Some(v4), v6: Some(v6) };
        let joined = vec![
            shortcut.join_tunnel(tunnel).expect("tunnel"),
            shortcut.join_port(port, &spec).expect("port"),
        ];
        shortcut.put(tunnel, MACS[own], Station::Here(port)).expect("here");
        shortcut.put(tunnel, MACS[other], Station::There).expect("there");
        (shortcut, joined)
    };
    home.run(join).expect("enter")
}

#[test]
fn own_traffic_goes_past_the_bridge_and_all_else_meets_it() {
    machine(|| {
        wire(false);
        host("one", 0, 1, ("192.0.2.1", "192.0.2.2"));
        host("two", 1, 0, ("192.0.2.2", "192.0.2.1"));
        for host in ["one", "two"] {
            run(&format!("ip netns exec {host} nft add table bridge seen"));
            run(&format!(
                "ip netns exec {host} nft 'add chain bridge seen frames {{ type filter hook prerouting priority 0; }}'"
            ));
            run(&format!("ip netns exec {host} nft add rule bridge seen frames ether type ip counter"));
        }
        let ping = |extra: &str, to: &str| {
            attempt(&format!("ip netns exec one-box ping -q -c2 -i0.2 -W1 {extra} {to}"))
        };
        assert!(ping("", "10.9.0.3").status.success());
        let both = || (bridged("one"), bridged("two"));
        assert!(both().0 >= 4 && both().1 >= 4, "the bridge sees both ways");

        let ends = [shorten("one", 0, 1), shorten("two", 1, 0)];
        let before = both();
        assert!(ping("", "10.9.0.3").status.success());
        assert!(ping("-s 1402 -M do", "10.9.0.3").status.success());
        assert_eq!(both(), before, "neither bridge is on the way");
        let talk = "ip netns exec two-box socat -u TCP6-LISTEN:9,reuseaddr STDOUT | wc -c > /run/got & \
                    for n in $(seq 50); do head -c 3000000 /dev/zero | ip netns exec one-box socat -u STDIN \
                    TCP6:[fd09::3]:9 && break; sleep 0.1; done; wait; cat /run/got";
        assert_eq!(run(talk).trim(), "3000000", "packets to be cut up, and IPv6");

        // What the bridge's rules have to judge: another's address, and what is for everybody.
        run("ip -n one-box addr add 10.9.0.66/24 dev eth0");
        for (extra, to) in [("-I 10.9.0.66", "10.9.0.3"), ("-b", "10.9.0.255")] {
            let before = bridged("one");
            ping(extra, to);
            assert!(bridged("one") > before, "{extra} {to}");
        }
        // A port that is forgotten, and programs that nobody holds.
        let before = both();
        ends[1].0.remove(index_of("two", "nx1"), MACS[1]).expect("removed");
        assert!(ping("", "10.9.0.3").status.success());
        assert!(both().1 > before.1 && both().0 == before.0);
        drop(ends);
        let before = bridged("one");
        assert!(ping("", "10.9.0.3").status.success());
        assert!(bridged("one") > before, "it is as before");
    });
}

fn index_of(host: &str, name: &str) -> u32 {
    let home = Netns::open(Path::new(&format!("/run/netns/{host}"))).expect("host");
    Rtnl::open_in(&home).expect("open").link(name).expect("look up").expect("exists").index
}

#[test]
fn what_is_known_is_reached_and_nothing_is_flooded() {
    for v6 in [false, true] {
        machine(|| {
            wire(v6);
            let (one, two) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
            host("one", 0, 1, (one, two));
            host("two", 1, 0, (two, one));
            run("ip netns exec one-box ping -q -c1 -W5 10.9.0.3");
            run("ip netns exec one-box ping -q -c1 -W5 fd09::3");
            let sent = || run("ip -n one -s -j link show nx1 | grep -o '\"tx\":{\"bytes\":[0-9]*'");
            let before = sent();
            for nobody in ["10.9.0.77", "fd09::77", "-b 10.9.0.255", "ff02::1%eth0"] {
                attempt(&format!("ip netns exec one-box ping -q -c1 -W1 {nobody}"));
            }
            assert_eq!(sent(), before, "neither questions for nobody nor words to all go to other hosts");
            // A source address that is not the port's does not come in.
            run("ip -n one-box link set eth0 address 02:00:00:00:0f:0f");
            assert!(!attempt("ip netns exec one-box ping -q -c1 -W1 10.9.0.3").status.success());
        });
    }
}
