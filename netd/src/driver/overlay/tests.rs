//! Two nodes, each a namespace with a kernel of its own to drive, and what sandboxes on them reach.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::driver::Gateways;
use crate::model::{BigTcp, Endpoint};
use crate::testing;

/// On a thread with namespaces and a /run of its own, all of which go with it.
pub(in crate::driver) fn machine(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let outcome = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make / private");
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount /run");
            test();
        });
        if let Err(cause) = outcome.join() {
            std::panic::resume_unwind(cause);
        }
    });
}

fn attempt(command: &str) -> Output {
    Command::new("sh").arg("-c").arg(command).output().expect("sh runs")
}

pub(in crate::driver) fn run(command: &str) -> String {
    let output = attempt(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Two nodes on one wire.
fn nodes() -> [Node; 2] {
    run("ip netns add n1; ip netns add n2; ip link add u netns n1 type veth peer name u netns n2");
    [1, 2].map(|number| {
        run(&format!("ip -n n{number} link set lo up; ip -n n{number} link set u up"));
        run(&format!("ip -n n{number} addr add 192.0.2.{number}/24 dev u"));
        let home = Netns::open(Path::new(&format!("/run/netns/n{number}"))).expect("node");
        let mut kernel = home.run(Kernel::open).expect("enter").expect("kernel");
        kernel.vtep = Some(Vtep { address: vtep(number), port: 4789 });
        Node { number, kernel, home }
    })
}

fn vtep(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

struct Node {
    number: u8,
    kernel: Kernel,
    home: Netns,
}

impl Node {
    fn here<T>(&mut self, deed: impl FnOnce(&mut Kernel) -> T) -> T {
        let Self { kernel, home, .. } = self;
        home.run(|| deed(kernel)).expect("enter")
    }

    fn sandbox(&mut self, network: &Network, last: u8) -> Endpoint {
        let name = format!("s{}{last}", self.number);
        let netns = Netns::create_at(Path::new(&format!("/run/netns/{name}"))).expect("sandbox");
        let mut endpoint =
            testing::endpoint_at(&network.id, &[&format!("10.9.0.{last}"), &format!("fd09::{last}")]);
        endpoint.v6 = endpoint.v6.map(|(address, _)| (address, 64));
        endpoint.mac = [2, 0, 0, 0, 0, last];
        endpoint.host_link = format!("no{}{last}", network.name).into();
        self.here(|kernel| kernel.attach(network, &endpoint, &netns, Gateways::default())).expect("attach");
        endpoint
    }
}

mod forged;
mod strangers;

fn network(name: &str, vni: u32) -> Network {
    let mut network = testing::network(name, &[("10.9.0.0/24", "10.9.0.1"), ("fd09::/64", "fd09::1")]);
    network.driver = Driver::Overlay { vni };
    network.options.mtu = 1450;
    network.options.big_tcp = BigTcp::On;
    network
}

fn known(endpoint: &Endpoint, node: u8) -> Known {
    let macs = endpoint.addresses().map(|address| (address, endpoint.mac)).collect();
    Known { vteps: [(endpoint.mac, vtep(node))].into(), macs }
}

#[test]
fn endpoints_of_two_nodes_reach_one_another_and_no_other_network() {
    machine(|| {
        let [mut one, mut two] = nodes();
        let (red, blue) = (network("red", 4096), network("blue", 4097));
        for node in [&mut one, &mut two] {
            for network in [&red, &blue] {
                node.here(|kernel| kernel.ensure_network(network)).expect("made");
                node.here(|kernel| kernel.ensure_network(network)).expect("made again");
            }
        }
        let (here, there) = (one.sandbox(&red, 2), two.sandbox(&red, 3));
        one.sandbox(&blue, 4);
        one.here(|kernel| kernel.sync_neighbours(&red, &known(&there, 2))).expect("known");
        two.here(|kernel| kernel.sync_neighbours(&red, &known(&here, 1))).expect("known");

        // The rules of bridges see the first packets only, where nobody is on the way to be asked.
        run("ip netns exec n2 nft add table bridge seen");
        run(
            "ip netns exec n2 nft 'add chain bridge seen frames { type filter hook prerouting priority 0; }'",
        );
        run("ip netns exec n2 nft add rule bridge seen frames ether type ip counter drop");
        run("ip netns exec s12 ping -q -c1 -W5 -M do -s 1422 10.9.0.3");
        run("ip netns exec n2 nft delete table bridge seen");
        run("ip netns exec s12 ping -q -c1 -W5 fd09::3");
        run("ip netns exec s23 ping -q -c1 -W5 10.9.0.1");
        assert!(!attempt("ip netns exec s14 ping -q -c1 -W1 10.9.0.3").status.success(), "another network");
        assert!(!run("ip -n n1 -d link show nd-red").contains("gso_max_size 196608"), "it would be cut up");
        let macs = ["n1", "n2"]
            .map(|node| run(&format!("ip -n {node} -j link show nd-red | grep -o '\"address\":\"[^\"]*\"'")));
        assert_eq!(macs[0], macs[1], "the gateway is the same wherever a sandbox comes to be");

        for network in [&red, &blue] {
            one.here(|kernel| kernel.remove_network(network)).expect("removed");
            one.here(|kernel| kernel.remove_network(network)).expect("removed again");
        }
        // Deleted in the background; who has the same number, or the same name, next does not meet what is left.
        let green = network("green", 4096);
        for network in [&green, &blue] {
            one.here(|kernel| kernel.ensure_network(network)).expect("made after others");
            one.here(|kernel| kernel.remove_network(network)).expect("removed");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !run("ip -n n1 -o link show type vxlan; ip -n n1 -o link show type bridge").is_empty() {
            assert!(Instant::now() < deadline, "devices are left");
            thread::park_timeout(Duration::from_millis(10));
        }
    });
}

#[test]
fn what_somebody_has_changed_is_put_right_and_what_is_unchanged_is_left() {
    machine(|| {
        let [mut one, mut two] = nodes();
        let red = network("red", 4096);
        for node in [&mut one, &mut two] {
            node.here(|kernel| kernel.ensure_network(&red)).expect("made");
        }
        one.sandbox(&red, 2);
        let there = two.sandbox(&red, 3);
        let wanted = known(&there, 2);
        one.here(|kernel| kernel.sync_neighbours(&red, &wanted)).expect("known");
        let shown = || {
            let tables = run(
                "bridge -n n1 fdb show dev nxid-red | sort; ip -n n1 neigh show dev nd-red nud permanent | sort",
            );
            tables.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        let right = shown();
        assert_eq!(right.iter().filter(|line| line.contains("02:00:00:00:00:03")).count(), 4, "{right:?}");

        run(
            "bridge -n n1 fdb del 02:00:00:00:00:03 dev nxid-red master; ip -n n1 neigh del fd09::3 dev nd-red",
        );
        run("bridge -n n1 fdb replace 02:00:00:00:00:03 dev nxid-red dst 192.0.2.66 self static");
        run("bridge -n n1 fdb add 02:00:00:00:00:77 dev nxid-red dst 192.0.2.77 self static");
        run("bridge -n n1 fdb append 00:00:00:00:00:00 dev nxid-red dst 192.0.2.77 self permanent");
        run("ip -n n1 neigh replace 10.9.0.77 lladdr 02:00:00:00:00:77 dev nd-red nud permanent");
        run("ip -n n1 neigh replace 10.9.0.3 lladdr 02:00:00:00:00:77 dev nd-red nud permanent");
        one.here(|kernel| kernel.sync_neighbours(&red, &wanted)).expect("put right");
        assert_eq!(shown(), right);

        let entries = [
            NeighbourEntry::Vtep(there.mac, Some(vtep(9))),
            NeighbourEntry::Mac([10, 9, 0, 3].into(), None),
            NeighbourEntry::Vtep([2, 0, 0, 0, 0, 8], Some("2001:db8::8".parse().expect("address"))),
        ];
        for _ in 0..2 {
            one.here(|kernel| kernel.follow_neighbours(&red, &entries)).expect("followed, and again");
        }
        let moved = shown().join("\n");
        assert!(moved.contains("02:00:00:00:00:03 dst 192.0.2.9"), "{moved}");
        assert!(!moved.contains("10.9.0.3 ") && !moved.contains("00:00:08"), "{moved}");
    });
}

#[test]
fn another_way_to_the_others_is_another_size_and_another_source_another_tunnel() {
    machine(|| {
        let [mut one, _two] = nodes();
        let red = network("red", 4096);
        let look = |kernel: &mut Kernel| kernel.look_at_underlay([vtep(2)].into_iter()).expect("looked at");
        one.here(look);
        one.here(|kernel| kernel.ensure_network(&red)).expect("made");
        one.sandbox(&red, 2);
        let mtu = |link: &str| run(&format!("ip -n n1 -o link show {link}; ip -n s12 -o link show eth0"));
        assert_eq!(mtu("nxid-red").matches("mtu 1450").count(), 2);

        run("ip -n n1 link set u mtu 1400");
        one.here(look);
        let model = {
            let mut model = Model::default();
            let mut sandbox = testing::sandbox("s12");
            let netns = Netns::open(Path::new("/run/netns/s12")).expect("sandbox").id();
            sandbox.netns_identity = (netns.device, netns.inode);
            sandbox.endpoints = vec![Endpoint {
                host_link: "nored2".into(),
                ..testing::endpoint_at("id-red", &["10.9.0.2"])
            }];
            model.sandboxes.insert(sandbox.id.clone(), sandbox.into());
            model.networks.insert(red.id.clone(), red.clone().into());
            model
        };
        one.here(|kernel| kernel.resize_overlays(&model)).expect("resized");
        for link in ["nxid-red", "nd-red", "nored2"] {
            assert_eq!(mtu(link).matches("mtu 1350").count(), 2, "{link}");
        }
        run("ip -n n1 link set u mtu 9000");
        one.here(look);
        one.here(|kernel| kernel.resize_overlays(&model)).expect("resized");
        assert_eq!(mtu("nd-red").matches("mtu 1450").count(), 2, "no more than the network's own");

        one.kernel.vtep = Some(Vtep { address: [192, 0, 2, 101].into(), port: 4790 });
        one.here(|kernel| kernel.ensure_network(&red)).expect("made anew");
        assert!(run("ip -n n1 -d link show nxid-red").contains("local 192.0.2.101 srcport 0 0 dstport 4790"));
        one.kernel.vtep = None;
        let refused = one.here(|kernel| kernel.ensure_network(&red)).expect_err("no cluster");
        let text = Chain(&refused).to_string();
        assert!(
            text.contains("cannot make the overlay network red") && text.contains("--store etcd"),
            "{text}"
        );
    });
}
