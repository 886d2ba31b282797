//! Changes somebody else makes are noticed, and told from one's own.

mod lab;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use lab::{machine, run};
use netd_sys::netlink::monitor::{Event, Group, Monitor, Tables};
use netd_sys::nft::{Nft, Table};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Everything up to the first event that fits.
fn until(monitor: &mut Monitor, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
    let (mut seen, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(10));
    while !seen.iter().any(&fits) {
        assert!(Instant::now() < deadline, "only saw {seen:#?}");
        let ready = PollFd::new(monitor.as_fd(), PollFlags::POLLIN);
        poll(&mut [ready], PollTimeout::from(1000_u16)).expect("poll");
        seen.extend(monitor.read().expect("read"));
    }
    seen
}

fn tables(events: &[Event]) -> Vec<&Tables> {
    events
        .iter()
        .filter_map(|event| if let Event::Tables(tables) = event { Some(tables) } else { None })
        .collect()
}

#[test]
fn a_flush_by_somebody_else_is_told_from_an_own_change() {
    machine(|| {
        let mut nft = Nft::open().expect("open");
        let mut monitor = Monitor::nftables().expect("open");
        nft.replace(&Table { name: "netd".into(), ..Table::default() }).expect("replace");
        let own = until(&mut monitor, |event| matches!(event, Event::Tables(_)));
        assert_eq!(tables(&own)[0].port, nft.port());
        assert!(tables(&own)[0].touched.contains("netd"));

        run("nft flush ruleset");
        let flush = until(&mut monitor, |event| matches!(event, Event::Tables(_)));
        let seen = tables(&flush)[0];
        assert!(seen.removed.contains("netd") && seen.port != nft.port(), "{seen:?}");

        run("nft add table ip else");
        let other = until(&mut monitor, |event| matches!(event, Event::Tables(_)));
        assert!(!tables(&other)[0].touched.contains("netd"));
        assert_eq!(monitor.read().expect("and does not block"), []);
    });
}

#[test]
fn links_addresses_routes_and_namespaces_are_reported() {
    machine(|| {
        let groups = [Group::Links, Group::Addresses, Group::Routes, Group::Netns];
        let mut monitor = Monitor::open(&groups).expect("open");
        run("ip link add br0 type bridge && ip addr add 10.9.0.1/24 dev br0 && ip link set br0 up");
        let seen = until(
            &mut monitor,
            |event| matches!(event, Event::Route(it) if it.destination.to_string() == "10.9.0.0/24"),
        );
        assert!(seen.iter().any(|event| matches!(event, Event::Link(link) if link.name == "br0" && link.up)));
        assert!(
            seen.iter()
                .any(|event| matches!(event, Event::Address(it) if it.address.to_string() == "10.9.0.1/24"))
        );

        run("ip netns add web && ip link add v0 type veth peer name v1 netns web");
        until(&mut monitor, |event| matches!(event, Event::Netns(_)));
        run("ip link del br0");
        let gone = until(&mut monitor, |event| matches!(event, Event::LinkGone(link) if link.name == "br0"));
        assert!(gone.iter().any(|event| matches!(event, Event::AddressGone(_))));
    });
}

#[test]
fn too_much_at_once_is_reported_as_lost() {
    machine(|| {
        let mut monitor = Monitor::open(&[Group::Addresses]).expect("open");
        nix::sys::socket::setsockopt(&monitor, nix::sys::socket::sockopt::RcvBuf, &1).expect("shrink");
        run("for n in $(seq 1 60); do echo addr add 10.9.0.$n/32 dev lo; done | ip -batch -");
        until(&mut monitor, |event| *event == Event::Lost);
        run("ip addr add 10.10.0.1/32 dev lo");
        until(
            &mut monitor,
            |event| matches!(event, Event::Address(it) if it.address.to_string() == "10.10.0.1/32"),
        );
    });
}
