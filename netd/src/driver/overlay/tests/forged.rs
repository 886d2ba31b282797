//! A sandbox that calls itself what it is not, frame by frame: by the table of bridges, and by the ports alone.

use std::io::Write as _;
use std::net::Ipv6Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use netd_sys::nft::Nft;

use super::*;
use crate::firewall::{Elements, GUARD, guard};
use crate::model::Sandbox;

const OWN: Mac = [2, 0, 0, 0, 0, 2];
const OTHER: Mac = [2, 0, 0, 0, 0, 3];
const GATEWAY: Mac = [2, 0x6e, 9, 9, 9, 9];
const ALL: Mac = [0xff; 6];
const LAST: &str = "other-protocol";

/// From the sandbox's device, as it is.
fn send(frame: &[u8]) {
    let mut command = Command::new("taskset");
    command.args("-c 0 ip netns exec s12 socat -u STDIN INTERFACE:eth0".split(' ')).stdin(Stdio::piped());
    let mut child = command.spawn().expect("socat runs");
    child.stdin.take().expect("a pipe").write_all(frame).expect("written");
    assert!(child.wait().expect("ended").success());
}

fn frame(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let mut header = [&[0x45, 0][..], &length, &[0, 1, 0, 0, 64, protocol, 0, 0], &from, &to].concat();
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [header, payload.to_vec()].concat()
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), 12_u16.to_be_bytes(), [0, 0], *b"hi", *b"!!"].concat()
}

fn arp(sender: Mac, address: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 2][..], &sender, &address, &OTHER, &[10, 9, 0, 3]].concat()
}

fn ipv6(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv6Addr>().expect("address").octets();
    let length = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[protocol, 255], &octets(from), &octets(to), payload].concat()
}

fn discovery(kind: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let target = target.parse::<Ipv6Addr>().expect("address").octets();
    [&[kind, 0, 0, 0, 0x60, 0, 0, 0][..], &target, options].concat()
}

fn option(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

/// What it is, what it is counted under (none: it passes), and the frame.
type Case = (&'static str, Option<&'static str>, Vec<u8>);

fn of_ipv4() -> Vec<Case> {
    let (own, to) = ([10, 9, 0, 2], [10, 9, 0, 3]);
    let plain = |from| ipv4(from, to, 17, &udp(9, 9));
    let mut token_ring = arp(OWN, own);
    token_ring[1] = 6;
    vec![
        ("own", None, frame(OTHER, OWN, 0x0800, &plain(own))),
        ("another MAC", Some("forged-mac"), frame(OTHER, [2, 0, 0, 0, 0, 9], 0x0800, &plain(own))),
        ("the gateway's MAC", Some("forged-mac"), frame(OTHER, GATEWAY, 0x0800, &plain(own))),
        ("another source", Some("forged-address"), frame(OTHER, OWN, 0x0800, &plain([10, 9, 0, 4]))),
        ("no source", Some("forged-address"), frame(ALL, OWN, 0x0800, &plain([0; 4]))),
        ("half a header", Some("forged-address"), frame(OTHER, OWN, 0x0800, &[0x45, 0, 0])),
        ("DHCP", Some("dhcp-server"), frame(ALL, OWN, 0x0800, &ipv4(own, [255; 4], 17, &udp(67, 68)))),
        ("own ARP", None, frame(OTHER, OWN, 0x0806, &arp(OWN, own))),
        ("a probe", None, frame(ALL, OWN, 0x0806, &arp(OWN, [0; 4]))),
        ("the gateway's ARP", Some("forged-arp"), frame(ALL, OWN, 0x0806, &arp(OWN, [10, 9, 0, 1]))),
        ("another's MAC in ARP", Some("forged-arp"), frame(ALL, OWN, 0x0806, &arp(OTHER, own))),
        ("half of ARP", Some("forged-arp"), frame(ALL, OWN, 0x0806, &arp(OWN, own)[..12])),
        ("ARP of Token Ring", Some("forged-arp"), frame(ALL, OWN, 0x0806, &token_ring)),
        (
            "a VLAN",
            Some("other-protocol"),
            frame(OTHER, OWN, 0x8100, &[&[0, 5, 8, 0], &*plain(own)].concat()),
        ),
        ("another protocol", Some("other-protocol"), frame(OTHER, OWN, 0x88cc, &[0; 40])),
    ]
}

fn of_ipv6() -> Vec<Case> {
    let (own, local) = ("fd09::2", "fe80::ff:fe00:2");
    let plain = |from: &str, protocol, payload: &[u8]| {
        frame(OTHER, OWN, 0x86dd, &ipv6(from, "fd09::3", protocol, payload))
    };
    let groups = frame(ALL, OWN, 0x86dd, &ipv6("::", "ff02::16", 58, &[143, 0, 0, 0]));
    vec![
        ("own", None, plain(own, 17, &udp(9, 9))),
        ("own link-local", None, plain(local, 17, &udp(9, 9))),
        ("another source", Some("forged-address"), plain("fd09::4", 17, &udp(9, 9))),
        ("another's ping", Some("forged-address"), plain("fd09::4", 58, &[128, 0, 0, 0])),
        ("DHCPv6", Some("dhcp-server"), plain(local, 17, &udp(547, 546))),
        ("a router", Some("router"), plain(local, 58, &[134, 0, 0, 0, 64, 0, 7, 8])),
        ("a redirect", Some("router"), plain(local, 58, &[137, 0, 0, 0])),
        ("groups before an address", None, groups),
    ]
}

fn of_discovery() -> Vec<Case> {
    let own = "fd09::2";
    let forged = Some("forged-neighbour");
    let ask = |from: &str, target: &str, options: &[u8]| {
        frame(ALL, OWN, 0x86dd, &ipv6(from, "ff02::1:ff00:3", 58, &discovery(135, target, options)))
    };
    let answer = |target: &str, options: &[u8]| {
        frame(OTHER, OWN, 0x86dd, &ipv6(own, "fd09::3", 58, &discovery(136, target, options)))
    };
    vec![
        ("own question", None, ask(own, "fd09::3", &option(1, OWN))),
        ("a bare one", None, ask(own, "fd09::3", &[])),
        ("a probe", None, ask("::", own, &[])),
        ("a probe of another's", forged, ask("::", "fd09::3", &[])),
        ("a question with another MAC", forged, ask(own, "fd09::3", &option(1, OTHER))),
        ("another's question", forged, ask("fd09::4", "fd09::3", &option(1, OWN))),
        ("a hidden MAC", forged, ask(own, "fd09::3", &[option(14, OWN), option(1, OTHER)].concat())),
        ("half a MAC", forged, ask(own, "fd09::3", &[1, 1, 2])),
        ("own answer", None, answer(own, &option(2, OWN))),
        ("an answer for the gateway", forged, answer("fd09::1", &option(2, OWN))),
        ("an answer with another MAC", forged, answer(own, &option(2, OTHER))),
    ]
}

fn model(network: &Network, endpoint: Option<&Endpoint>) -> Model {
    let mut model = Model::default();
    let sandbox = Sandbox { endpoints: endpoint.cloned().into_iter().collect(), ..testing::sandbox("s12") };
    model.sandboxes.insert(sandbox.id.clone(), sandbox.into());
    model.networks.insert(network.id.clone(), network.clone().into());
    model
}

/// What is counted for the frame. Frames of one processor keep their order: when one of another protocol behind it has
/// been counted, it has been, too.
fn judged(nft: &mut Nft, frame: &[u8], reason: Option<&str>) -> Vec<String> {
    let before = nft.counters(GUARD).expect("counted");
    send(frame);
    send(&self::frame(OTHER, OWN, 0x88b5, &[0; 40]));
    let awaited = if reason == Some(LAST) { 2 } else { 1 };
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut after = nft.counters(GUARD).expect("counted");
        if let Some(last) = after.get_mut(LAST).filter(|packets| **packets >= before[LAST] + awaited) {
            *last -= 1;
            let grown = after.into_iter().filter(|(reason, packets)| before[reason] != *packets);
            return grown.map(|(reason, _)| reason).collect();
        }
        assert!(Instant::now() < deadline, "frames do not arrive");
        thread::yield_now();
    }
}

#[test]
fn what_a_sandbox_is_not_does_not_get_past_its_port_and_is_counted() {
    machine(|| {
        let [mut one, _two] = nodes();
        let red = network("red", 4096);
        one.here(|kernel| kernel.ensure_network(&red)).expect("made");
        let endpoint = one.sandbox(&red, 2);
        let mut nft = Nft::open_in(&one.home).expect("open");
        nft.replace(&guard(&model(&red, None), &Elements::default()).expect("a table")).expect("written");
        assert!(
            !attempt("ip netns exec s12 ping -q -c1 -W1 10.9.0.1").status.success(),
            "nobody speaks for it"
        );
        nft.replace(&guard(&model(&red, Some(&endpoint)), &Elements::default()).expect("a table"))
            .expect("written");
        let served = "ip netns exec s12 ping -q -c1 -W5 10.9.0.1; ip netns exec s12 ping -q -c1 -W5 fd09::1";
        run(served);

        for (what, reason, frame) in [of_ipv4(), of_ipv6(), of_discovery()].concat() {
            assert_eq!(judged(&mut nft, &frame, reason), reason.into_iter().collect::<Vec<_>>(), "{what}");
        }
        run(served);
        assert!(guard(&Model::default(), &Elements::default()).is_none(), "nothing to guard");
    });
}

#[test]
fn without_rules_the_port_itself_keeps_a_forged_mac_out() {
    machine(|| {
        let [mut one, _two] = nodes();
        let red = network("red", 4096);
        one.here(|kernel| kernel.ensure_network(&red)).expect("made");
        one.sandbox(&red, 2);
        run("ip netns exec s12 ping -q -c1 -W5 10.9.0.1");
        run("ip -n s12 link set eth0 address 02:00:00:00:0f:0f");
        assert!(!attempt("ip netns exec s12 ping -q -c1 -W1 10.9.0.1").status.success());
    });
}
