//! Packets for the tunnels and the mesh that no node has sent: from a host on the same wire, from a sandbox, from this
//! host itself.

use netd_sys::nft::Nft;

use super::*;
use crate::firewall::{self, Ends};
use crate::model;
use crate::testing;

fn node(number: u8) -> model::Node {
    testing::node(&format!("n{number}"), vtep(number))
}

/// The firewall of a node that knows of these.
fn write(at: &Node, networks: &[&Network], nodes: &[u8]) -> Nft {
    let mut model = Model { here: node(at.number).name, ..Model::default() };
    for network in networks {
        model.networks.insert(network.id.clone(), (*network).clone().into());
    }
    model.nodes.extend(nodes.iter().map(|&number| (node(number).name, node(number).into())));
    let ends = Ends { vtep: vtep(at.number), vxlan_port: 4789, mesh_port: 6383 };
    let mut nft = Nft::open_in(&at.home).expect("open");
    nft.replace(&firewall::render(&model, Some(&ends))).expect("written");
    nft
}

fn count(nft: &mut Nft, reason: &str) -> u64 {
    nft.counters(firewall::TABLE).expect("counted").get(reason).copied().unwrap_or_default()
}

/// A frame for a sandbox of network 4096, as another node would send it.
fn forge(from: &str, to: &str, port: u16) {
    let ping = "0800000010000000020000000003020000000002080045000020000100004001662e0a0900030a0900020800f7ff00000000deadbeef";
    run(&format!("echo {ping} | xxd -r -p | ip netns exec {from} socat -u STDIN UDP4-SENDTO:{to}:{port}"));
}

#[test]
fn only_nodes_that_live_reach_the_tunnels_and_the_mesh() {
    machine(|| {
        let [mut one, mut two] = nodes();
        let (red, plain) = (network("red", 4096), testing::network("plain", &[("10.8.0.0/24", "10.8.0.1")]));
        for node in [&mut one, &mut two] {
            node.here(|kernel| kernel.ensure_network(&red)).expect("made");
        }
        one.here(|kernel| kernel.ensure_network(&plain)).expect("made");
        let (here, there) = (one.sandbox(&red, 2), two.sandbox(&red, 3));
        one.here(|kernel| kernel.sync_neighbours(&red, &known(&there, 2))).expect("known");
        two.here(|kernel| kernel.sync_neighbours(&red, &known(&here, 1))).expect("known");
        let guest = Netns::create_at(Path::new("/run/netns/guest")).expect("sandbox");
        let endpoint = testing::endpoint_at(&plain.id, &["10.8.0.2"]);
        let through = Gateways { v4: Some([10, 8, 0, 1].into()), v6: None };
        one.here(|kernel| kernel.attach(&plain, &endpoint, &guest, through)).expect("attached");
        let mut first = write(&one, &[&red, &plain], &[1, 2]);
        let mut second = write(&two, &[&red], &[1, 2]);
        run("ip netns exec s12 ping -q -c2 -i0.2 -W5 10.9.0.3");

        // Another address on the wire.
        run("ip -n n2 addr add 192.0.2.66/24 dev u; ip -n n2 addr add 192.0.2.55/24 dev u");
        let ping = "ip netns exec n2 socat -u STDIN UDP4-SENDTO:192.0.2.1:4789,bind=192.0.2.66";
        run(&format!("echo 0800000000100000 | xxd -r -p | {ping}"));
        assert_eq!(count(&mut first, "vxlan-from-no-node"), 1);
        let knock = |port: &str| {
            attempt(&format!(
                "ip netns exec n2 socat -T1 -u /dev/null TCP4:192.0.2.1:{port},bind=192.0.2.66,connect-timeout=1"
            ))
        };
        assert!(!knock("6383").status.success());
        assert!(count(&mut first, "mesh-from-no-node") >= 1, "dropped, not refused");
        assert_eq!(count(&mut first, "mesh-from-sandbox"), 0);

        // This host itself, which could write anything into it.
        forge("n1", "192.0.2.1", 4789);
        assert_eq!(count(&mut first, "vxlan-from-no-node"), 2);

        // A sandbox to its own host, and to another under its host's address, which that one believes.
        forge("guest", "10.8.0.1", 4789);
        forge("guest", "192.0.2.1", 4789);
        forge("guest", "192.0.2.2", 4789);
        forge("guest", "192.0.2.2", 6383);
        assert_eq!(count(&mut first, "vxlan-from-sandbox"), 3);
        assert_eq!(count(&mut first, "mesh-from-sandbox"), 1);
        // To an address of that host that the first does not know to be a node's.
        forge("guest", "192.0.2.55", 4789);
        assert_eq!(count(&mut second, "vxlan-from-no-node"), 1);
        assert_eq!(count(&mut second, "vxlan-from-sandbox"), 0);

        // A node that has died is nobody.
        first = write(&one, &[&red, &plain], &[1]);
        assert!(!attempt("ip netns exec s12 ping -q -c1 -W1 10.9.0.3").status.success());
        assert!(count(&mut first, "vxlan-from-no-node") >= 1);
    });
}

#[test]
fn connections_to_the_outside_are_told_the_smaller_size() {
    for filtered in ["0", "1"] {
        machine(|| {
            let [mut one, _two] = nodes();
            let red = network("red", 4096);
            one.here(|kernel| kernel.ensure_network(&red)).expect("made");
            let through = Gateways { v4: Some([10, 9, 0, 1].into()), v6: None };
            let endpoint = testing::endpoint_at(&red.id, &["10.9.0.2"]);
            let guest = Netns::create_at(Path::new("/run/netns/guest")).expect("sandbox");
            one.here(|kernel| kernel.attach(&red, &endpoint, &guest, through)).expect("attached");
            // Where there is no such switch, frames of bridges are not filtered anyway.
            attempt(&format!("ip netns exec n1 sysctl -w net.bridge.bridge-nf-call-iptables={filtered}"));
            let _nft = write(&one, &[&red], &[1, 2]);
            run("ip -n guest link set eth0 mtu 1500");
            let server = Command::new("sh")
                .args([
                    "-c",
                    "exec ip netns exec n2 socat -T5 TCP4-LISTEN:9,reuseaddr EXEC:'ss -tin sport = 9'",
                ])
                .spawn();
            let mut server = server.expect("socat runs");
            let deadline = Instant::now() + Duration::from_secs(5);
            let shown = loop {
                let output =
                    attempt("ip netns exec guest socat -T5 - TCP4:192.0.2.2:9 < /dev/null; sleep 0.05");
                let shown = String::from_utf8_lossy(&output.stdout).into_owned();
                if !shown.is_empty() || Instant::now() > deadline {
                    break shown;
                }
            };
            let _ = server.kill();
            let _ = server.wait();
            assert!(shown.contains("mss:1398"), "1450 less the headers and a time stamp: {shown}");
        });
    }
}
