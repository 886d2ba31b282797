//! The lab itself: what every other scenario stands on.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use netd_tests::capture::Capture;
use netd_tests::snapshot::Snapshot;
use netd_tests::{Place, query, scenario, traffic};

#[test]
fn two_hosts_reach_each_other_and_the_router() {
    scenario(|lab| {
        let (one, two) = (lab.host("one")?, lab.host("two")?);
        for to in [SocketAddr::from((two.v4, 80)), SocketAddr::from((two.v6, 80))] {
            traffic::serve(two.listen(to)?);
            traffic::exchange(&one, to, 1, 100_000, 300_000)?;
            let socket = two.udp(to)?;
            traffic::echo(socket);
            let unspecified: SocketAddr =
                if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
            traffic::ping(&one.udp(unspecified)?, to, 1, 1200)?;
        }
        one.sh("ping -c1 -W2 198.51.100.1")?;
        one.sh("ping -c1 -W2 2001:db8:51::1")?;
        ensure!(one.connect((two.v4, 81)).is_err(), "nothing listens on 81");
        Ok(())
    });
}

#[test]
fn a_lab_sees_no_link_of_the_machine_and_no_other_process() {
    scenario(|lab| {
        let links = |place: &Place| -> Result<_> { Ok(place.sh("ip -br link")?.stdout) };
        ensure!(!links(&lab.router)?.contains("eth0"), "{}", links(&lab.router)?);
        let processes = lab.router.sh("ps ax -o comm=")?.stdout;
        ensure!(processes.lines().count() <= 3, "{processes}");
        Ok(())
    });
}

#[test]
fn what_is_left_behind_is_noticed() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let nowhere = std::path::Path::new("/run/lab/nowhere");
        for (leave, remove) in [
            ("ip link add left type bridge", "ip link del left"),
            ("ip addr add 10.9.9.9/32 dev lo", "ip addr del 10.9.9.9/32 dev lo"),
            ("ip route add 10.8.0.0/16 dev eth0", "ip route del 10.8.0.0/16"),
            ("ip rule add from 10.7.0.0/16 table 77", "ip rule del from 10.7.0.0/16 table 77"),
            ("nft add table inet left", "nft delete table inet left"),
        ] {
            let before = Snapshot::take(&host)?;
            host.sh(leave)?;
            ensure!(before.differs(&host, nowhere)?, "`{leave}` is not seen");
            host.sh(remove)?;
            ensure!(!before.differs(&host, nowhere)?, "`{leave}` and `{remove}` are a change");
        }
        let before = Snapshot::take(&host)?;
        std::fs::create_dir_all("/run/lab/nowhere/deep")?;
        std::fs::write("/run/lab/nowhere/deep/file", "")?;
        ensure!(before.differs(&host, nowhere)?, "a file is not seen");
        std::fs::remove_dir_all(nowhere)?;
        Ok(())
    });
}

#[test]
fn captures_queries_and_background_programs_work() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let capture = Capture::start(&host, "eth0", "icmp")?;
        host.sh("ping -c1 -W2 198.51.100.1")?;
        capture.sees("ICMP echo request")?;
        let server = host.start(
            "dnsmasq -k -C /dev/null -u root -x '' -R -h --listen-address=127.0.0.11 --bind-interfaces --host-record=web,192.0.2.80",
        )?;
        netd_tests::eventually(std::time::Duration::from_secs(5), "dnsmasq answers", || {
            host.run("dig @127.0.0.11 +tries=1 +timeout=1 web")?.success()
        })?;
        let queries = query::Loop::start(&host, "web")?;
        host.sh("ping -c2 -i0.2 127.0.0.1")?;
        ensure!(queries.finish()?.answered > 10, "a loop asks often");
        let silent = query::Loop::start(&host, "web")?;
        drop(server);
        ensure!(silent.finish().is_err(), "a missing answer is a failure");
        host.run("false")?.refused(1, "").context("exit codes").map(drop)
    });
}
