//! The lab itself: what every other scenario stands on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::capture::Capture;
use netd_tests::cuts::Cuts;
use netd_tests::etcd::Etcd;
use netd_tests::load::{Offer, Steady, Talk};
use netd_tests::snapshot::Snapshot;
use netd_tests::{Place, eventually, query, scenario, traffic};

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
        eventually(Duration::from_secs(5), "dnsmasq answers", || {
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

#[test]
fn a_steady_load_tells_who_answered_what_failed_and_for_how_long() {
    scenario(|lab| {
        let (server, client) = (lab.host("server")?, lab.host("client")?);
        let start = || -> Result<_> {
            let echo = server.start("lab_echo --name one --tcp 7000 --udp 7000 --http 80")?;
            echo.says("ready")?;
            Ok(echo)
        };
        let at = |port| SocketAddr::from((server.v4, port));
        let echo = start()?;
        let offers = [
            Offer::tcp(at(7000), 100),
            Offer::tcp((server.v6, 7000).into(), 100),
            Offer::http(at(80), "/", 50),
            Offer::udp(at(7000), 100),
            Offer::udp_fixed(at(7000), 5000, 100),
        ];
        let loads = offers.map(|offer| Steady::start(&client, offer));
        let loads = loads.into_iter().collect::<Result<Vec<_>>>()?;
        loads.iter().try_for_each(|load| load.more(20))?;
        let killed = Instant::now();
        drop(echo);
        eventually(Duration::from_secs(5), "all of them fail", || {
            ensure!(loads.iter().all(|load| load.so_far().since(killed).failed() > 0), "not yet");
            Ok(())
        })?;
        let _echo = start()?;
        let again = Instant::now();
        loads.iter().try_for_each(|load| load.more(20))?;
        for load in loads {
            let tally = load.finish()?;
            ensure!(tally.before(killed).failed() <= tally.during(killed).failed(), "{tally}");
            ensure!(tally.troubled_for(killed).context("it failed")? <= again - killed, "{tally}");
            ensure!(tally.reasons().keys().any(|how| how.contains("refused")), "{tally}");
            ensure!(tally.by().keys().eq(["one"]) && tally.since(again).failed() == 0, "{tally}");
        }
        Ok(())
    });
}

#[test]
fn a_server_that_is_told_to_end_finishes_what_it_has() {
    scenario(|lab| {
        let host = lab.host("server")?;
        let echo = host.start("lab_echo --name one --tcp 7000")?;
        echo.says("ready")?;
        let to = SocketAddr::from((host.v4, 7000));
        let patience = Duration::from_secs(5);
        let mut talk = host.enter(|| Talk::open(to, None, patience))??;
        talk.say(1, 1000)?;
        echo.signal(nix::sys::signal::Signal::SIGTERM)?;
        eventually(patience, "no more are taken", || {
            ensure!(host.enter(|| Talk::open(to, None, patience))?.is_err(), "it still listens");
            Ok(())
        })?;
        talk.say(2, 1000)?;
        ensure!(echo.runs(), "it waits for its last client");
        talk.close()?;
        ensure!(echo.wait(patience)? == 0, "and then ends well");
        Ok(())
    });
}

#[test]
fn etcd_ends_freezes_and_starts_again_with_what_it_knew_or_nothing() {
    scenario(|lab| {
        let etcd = Etcd::start(&lab.host("etcd")?)?;
        etcd.ctl("put here 1")?;
        etcd.kill()?;
        etcd.restart()?;
        ensure!(etcd.keys("h")? == ["here"], "it has kept it");
        etcd.freeze()?;
        ensure!(etcd.ctl("--command-timeout=300ms get here").is_err(), "it answers nobody");
        etcd.thaw()?;
        ensure!(etcd.ctl("get here")?.stdout.contains('1'), "it goes on");
        etcd.stop()?;
        etcd.wipe()?;
        etcd.restart()?;
        ensure!(etcd.keys("h")?.is_empty(), "it knows nothing");
        Ok(())
    });
}

#[test]
fn a_cut_parts_two_machines_and_no_others_until_it_is_healed() {
    scenario(|lab| {
        let (one, two, three) = (lab.host("one")?, lab.host("two")?, lab.host("three")?);
        let cuts = Cuts::new(lab)?;
        let ping = |from: &Place, to: std::net::IpAddr| -> Result<bool> {
            Ok(from.run(&format!("ping -c1 -W1 {to}"))?.code == 0)
        };
        ensure!(ping(&one, two.v4.into())?, "before");
        cuts.between(&one, &two)?;
        ensure!(!ping(&one, two.v4.into())? && !ping(&two, one.v6.into())?, "cut");
        ensure!(ping(&one, three.v4.into())? && ping(&three, two.v6.into())?, "the others");
        cuts.heal()?;
        ensure!(ping(&two, one.v6.into())?, "healed");
        Ok(())
    });
}
