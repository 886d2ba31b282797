//! A neighbour that remembers the last holder of an address learns of the new one without asking.

mod lab;

use std::net::IpAddr;
use std::path::Path;

use lab::{machine, run};
use netd_sys::announce::announce;
use netd_sys::netns::Netns;

#[test]
fn the_neighbours_learn_the_new_mac_address() {
    machine(|| {
        let web = Netns::create_at(Path::new("/run/netns/web")).expect("netns");
        run("ip link add v0 type veth peer name eth0 address 02:00:00:00:00:02 netns web");
        run("ip link set v0 up && ip -n web link set eth0 up");
        run("ip addr add 10.9.0.1/24 dev v0 && ip addr add fd09::1/64 dev v0 nodad");
        run("ip -n web addr add 10.9.0.2/24 dev eth0 && ip -n web addr add fd09::2/64 dev eth0 nodad");
        for (known, address) in [("ip neigh", "10.9.0.2"), ("ip -6 neigh", "fd09::2")] {
            run(&format!("{known} replace {address} lladdr 02:00:00:00:00:99 dev v0 nud stale"));
            let index: u32 =
                run("ip netns exec web cat /sys/class/net/eth0/ifindex").trim().parse().expect("index");
            let address: IpAddr = address.parse().expect("address");
            web.run(|| announce(index, [2, 0, 0, 0, 0, 2], address)).expect("enter").expect("announce");
            let shown = run(&format!("{known} show {address} dev v0"));
            assert!(shown.contains("02:00:00:00:00:02"), "{shown}");
        }
        let failed =
            web.run(|| announce(99, [2, 0, 0, 0, 0, 2], "10.9.0.2".parse().expect("ip"))).expect("enter");
        assert_eq!(failed.expect_err("no such link").to_string(), "cannot announce 10.9.0.2 on link 99");
    });
}
