//! Who is well: checks, ejection, draining, and datagrams that follow.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{ask, becomes, talk, vip};
use netd_tests::load::{Offer, Steady};
use netd_tests::{Backend, Daemon, Lab, Place, eventually, scenario};

fn stage(lab: &Lab, flags: &str, count: usize) -> Result<(Daemon, Place, Vec<Backend>, SocketAddr)> {
    let netd = lab.host("n1")?.daemon()?;
    netd.netd("network create app --ipv6")?;
    netd.netd(&format!("service create web --network app --port 7000:7000 --port 7000:7000/udp {flags}"))?;
    let start = |number| Backend::start(&netd, &format!("web{number}"), "--network app --service web");
    let backends = (1..=count).map(start).collect::<Result<_>>()?;
    let client = netd.create("client", "--network app")?;
    let to = (vip::<Ipv4Addr>(&netd, "web")?, 7000).into();
    Ok((netd, client, backends, to))
}

#[test]
fn a_backend_that_fails_its_check_gets_no_connections_until_it_is_well_again() {
    scenario(|lab| {
        for check in ["http://:80/health", "tcp:7000"] {
            let netd = lab.host(&format!("n-{}", &check[..3]))?.daemon()?;
            netd.netd("network create app")?;
            netd.netd(&format!(
                "service create web --network app --port 7000:7000 --health {check} --health-interval 100ms"
            ))?;
            let start =
                |number| Backend::start(&netd, &format!("web{number}"), "--network app --service web");
            let mut backends = [start(1)?, start(2)?];
            ["web1", "web2"].iter().try_for_each(|name| becomes(&netd, "web", name, "ready"))?;
            let client = netd.create("client", "--network app")?;
            let to = SocketAddr::from((vip::<Ipv4Addr>(&netd, "web")?, 7000));
            let load = Steady::start(&client, Offer::tcp(to, 100))?;
            load.more(20)?;
            let begun = Instant::now();
            if check.starts_with("http") {
                backends[0].switch("/fail")?;
            } else {
                backends[0].kill()?;
            }
            let unwell = Instant::now();
            becomes(&netd, "web", "web1", "failing")?;
            let since = Instant::now();
            load.more(40)?;
            let alone = load.so_far().since(since).by();
            ensure!(alone.keys().eq(["web2"]), "only the one that is well: {alone:?}");
            if check.starts_with("http") {
                backends[0].switch("/mend")?;
            } else {
                backends[0].again()?;
            }
            becomes(&netd, "web", "web1", "ready")?;
            let since = Instant::now();
            load.more(40)?;
            let both = load.so_far().since(since).by();
            ensure!(both.len() == 2, "both again: {both:?}");
            let tally = load.finish()?;
            tally.since(unwell).flawless(80)?;
            // What it was doing when it was killed is lost with it.
            let killed = tally.before(unwell).ended_since(begun).failed();
            ensure!(tally.failed() == if check.starts_with("http") { 0 } else { killed }, "{tally}");
        }
        Ok(())
    });
}

#[test]
fn a_backend_that_takes_draining_keeps_its_connections_until_the_deadline() {
    scenario(|lab| {
        let (netd, client, _backends, to) = stage(lab, "--drain 2s", 2)?;
        let mut old = loop {
            let mut one = talk(&client, to)?;
            if one.say(1, 10)?.by == "web1" {
                break one;
            }
        };
        netd.netd("service drain web web1")?;
        becomes(&netd, "web", "web1", "draining")?;
        for _ in 0..6 {
            ensure!(ask(&client, to)?.by == "web2", "new ones go to the other");
        }
        old.say(2, 1000).context("the old one goes on")?;
        let failure = eventually(Duration::from_secs(8), "the deadline closes it", || {
            old.say(3, 10).err().context("it still goes on")
        })?;
        ensure!(failure.how == "reset" || failure.how == "closed", "{failure}");
        Ok(())
    });
}

#[test]
fn draining_backends_serve_while_there_is_no_other() {
    scenario(|lab| {
        let (netd, client, _backends, to) = stage(lab, "", 2)?;
        netd.netd("service drain web web1")?;
        netd.netd("service drain web web2")?;
        for _ in 0..6 {
            ask(&client, to)?;
        }
        let _third = Backend::start(&netd, "web3", "--network app --service web")?;
        for _ in 0..6 {
            ensure!(ask(&client, to)?.by == "web3", "now there is another");
        }
        Ok(())
    });
}

#[test]
fn a_killed_backend_fails_no_new_connection() {
    scenario(|lab| {
        let (_netd, client, backends, to) = stage(lab, "", 3)?;
        let load = Steady::start(&client, Offer::tcp(to, 200))?;
        load.more(100)?;
        backends[1].kill()?;
        let killed = Instant::now();
        load.more(300)?;
        let tally = load.finish()?;
        tally.since(killed).flawless(200)?;
        let under_way = tally.during(killed).attempts().len();
        ensure!(tally.failed() <= under_way, "what was under way may fail, {under_way}: {tally}");
        ensure!(tally.since(killed).by().len() == 2, "{tally}");
        Ok(())
    });
}

#[test]
fn a_backend_that_hangs_or_is_gone_is_passed_by() {
    scenario(|lab| {
        let (netd, client, backends, to) =
            stage(lab, "--health tcp:7000 --health-interval 100ms --health-timeout 300ms", 3)?;
        ["web1", "web2", "web3"].iter().try_for_each(|name| becomes(&netd, "web", name, "ready"))?;
        // Its link is down: packets to it go nowhere, and nobody says so.
        backends[0].place.sh("ip link set eth0 down")?;
        // Who is led there before that is found out waits for it.
        let offer = Offer { patience: Duration::from_secs(12), in_flight: 128, ..Offer::tcp(to, 50) };
        let load = Steady::start(&client, offer)?;
        becomes(&netd, "web", "web1", "failing")?;
        load.more(200)?;
        load.finish()?.flawless(200).map(drop)
    });
}

#[test]
fn a_flow_of_datagrams_follows_its_backends() {
    scenario(|lab| {
        let (netd, client, mut backends, to) = stage(lab, "", 2)?;
        let load = Steady::start(&client, Offer::udp_fixed(to, 5000, 50))?;
        load.more(20)?;
        let first = load.so_far().by().keys().next().cloned().context("it is answered")?;
        let at = backends.iter().position(|backend| backend.name == first).context("one of them")?;
        // It dies: the port is refused from one moment to the next.
        backends[at].kill()?;
        let killed = Instant::now();
        load.more(60)?;
        // The sandbox of the one that took over goes as a whole.
        let other = backends.remove(1 - at);
        let mut dead = backends.remove(0);
        dead.again()?;
        let removed = Instant::now();
        other.remove()?;
        load.more(60)?;
        let tally = load.finish()?;
        for (moment, next) in [(killed, removed), (removed, Instant::now())] {
            // What was under way at the next change belongs to that.
            let next = next.checked_sub(PATIENCE).context("later than the first")?;
            let lost = tally.since(moment).before(next).troubled_for(moment).unwrap_or_default();
            ensure!(lost < Duration::from_secs(1), "it stood still for {lost:?}: {tally}");
        }
        // And when there was none at all: a flow that was refused follows the first that comes.
        dead.remove()?;
        let load = Steady::start(&client, Offer::udp_fixed(to, 5001, 50))?;
        load.more(10)?;
        let _new = Backend::start(&netd, "web9", "--network app --service web")?;
        let came = Instant::now();
        load.more(60)?;
        let tally = load.finish()?;
        let late = tally.troubled_for(came).unwrap_or_default();
        ensure!(late < Duration::from_secs(1), "it went on being refused for {late:?}: {tally}");
        Ok(())
    });
}

/// How long a datagram may be under way.
const PATIENCE: Duration = Duration::from_millis(300);
