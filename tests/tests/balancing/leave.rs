//! Endpoints removed under load, down to the last one: who was let in is served to the end, and when nobody is left to
//! answer clients are refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Result, ensure};
use netd_tests::backend::{endpoint, vip};
use netd_tests::load::{Offer, Steady};
use netd_tests::place::PATIENCE;
use netd_tests::{Backend, Daemon, Host, Lab, Place, Setup, eventually, refusal, scenario};

struct Stage {
    netd: Daemon,
    /// From where, and to what.
    clients: Vec<(Place, SocketAddr)>,
    host: Host,
    outsider: Host,
}

/// A service without endpoints yet, published on 8080; its clients are a neighbour, the host, and somebody outside.
fn stage(lab: &Lab, flags: &str, way: &str) -> Result<Stage> {
    let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
    if way == "tproxy" {
        host.filter_bridges(false)?;
    }
    let config = format!("[publish]\nsteer = \"{way}\"\n");
    let netd = host.daemon_with(Setup { config, ..Setup::default() })?;
    netd.netd("network create app --ipv6")?;
    let published = "-p 8080:7000 -p 8080:7000/udp";
    netd.netd(&format!("service create web --network app {published} {flags}"))?;
    let client = netd.create("client", "--network app")?;
    let inside: SocketAddr = (vip::<Ipv4Addr>(&netd, "web")?, 7000).into();
    let clients = vec![
        (client, inside),
        (host.place.clone(), inside),
        (outsider.place.clone(), (host.v6, 8080).into()),
    ];
    Ok(Stage { netd, clients, host, outsider })
}

impl Stage {
    /// Connections that take so many milliseconds to be answered.
    fn loads(&self, delay: u32) -> Result<Vec<Steady>> {
        let start = |(from, to): &(Place, SocketAddr)| Steady::start(from, Offer::slow(*to, 150, delay));
        self.clients.iter().map(start).collect()
    }
}

fn backends(netd: &Daemon, round: usize) -> Result<[Backend; 2]> {
    let start = |number| Backend::start(netd, &format!("web{round}{number}"), "--service web");
    Ok([start(1)?, start(2)?])
}

/// All endpoints go one after the other, under a load of connections that take `delay` milliseconds to be answered.
fn all_go(it: &Stage, round: usize, delay: u32) -> Result<()> {
    let [first, last] = backends(&it.netd, round)?;
    let loads = it.loads(delay)?;
    loads.iter().try_for_each(|load| load.more(15))?;
    it.netd.netd(&format!("sandbox rm {}", first.name))?;
    loads.iter().try_for_each(|load| load.more(15))?;
    let alone = Instant::now();
    it.netd.netd(&format!("sandbox rm {}", last.name))?;
    loads.iter().try_for_each(|load| load.more(15))?;
    for load in loads {
        let tally = load.finish()?;
        println!("round {round}: {tally}");
        tally.cut_nobody()?;
        let under_way = tally.during(alone).attempts().len();
        ensure!(tally.before(alone).failed() <= under_way, "another was there: {tally}");
    }
    it.clients.iter().try_for_each(|(from, to)| refusal::of_tcp(from, *to))
}

/// Their connections never all end at once, so that the deadline ends them.
fn under_a_load_that_never_pauses(lab: &Lab, flags: &str, way: &str) -> Result<()> {
    let it = stage(lab, &format!("--drain 1s {flags}"), way)?;
    (1..=2).try_for_each(|round| all_go(&it, round, 40))
}

#[test]
fn the_last_endpoint_goes_at_its_deadline_and_cuts_nobody() {
    scenario(|lab| under_a_load_that_never_pauses(lab, "", "sk_lookup"));
}

#[test]
fn the_last_endpoint_goes_at_its_deadline_and_cuts_nobody_without_bpf() {
    scenario(|lab| under_a_load_that_never_pauses(lab, "", "tproxy"));
}

#[test]
fn the_last_endpoint_of_clients_that_go_straight_cuts_nobody() {
    scenario(|lab| under_a_load_that_never_pauses(lab, "--east-west connect", "sk_lookup"));
}

#[test]
fn the_last_endpoint_goes_between_two_connections_and_cuts_nobody() {
    scenario(|lab| {
        let it = stage(lab, "--drain 1s", "sk_lookup")?;
        (1..=6).try_for_each(|round| all_go(&it, round, 0))
    });
}

#[test]
fn a_daemon_that_dies_at_any_moment_of_a_removal_cuts_nobody() {
    scenario(|lab| {
        let it = stage(lab, "--drain 1s", "sk_lookup")?;
        for round in 1..=4 {
            let backend = Backend::start(&it.netd, &format!("web{round}"), "--service web")?;
            let loads = it.loads(40)?;
            loads.iter().try_for_each(|load| load.more(15))?;
            let removal = it.netd.place.start(&format!("netd sandbox rm {}", backend.name))?;
            eventually(PATIENCE, "its removal has begun", || {
                let is_ready =
                    endpoint(&it.netd, "web", &backend.name).is_ok_and(|one| one["State"] == "ready");
                ensure!(!is_ready, "it is ready");
                Ok(())
            })?;
            // Some tenths of a second later each time.
            loads[0].more(30 * (round - 1))?;
            it.netd.kill()?;
            removal.wait(PATIENCE)?;
            loads.iter().try_for_each(|load| load.more(15))?;
            it.netd.start()?;
            eventually(PATIENCE, "it is removed", || {
                it.netd.try_netd(&format!("sandbox inspect {}", backend.name))?.refused(1, &backend.name)
            })?;
            for load in loads {
                load.finish()?.cut_nobody()?;
            }
        }
        Ok(())
    });
}

#[test]
fn datagrams_follow_from_an_endpoint_that_goes() {
    scenario(|lab| {
        let it = stage(lab, "--drain 1s", "sk_lookup")?;
        let [first, last] = backends(&it.netd, 1)?;
        let (client, inside) = &it.clients[0];
        let outside = (it.host.v4, 8080).into();
        let offers = [
            (client, Offer::udp(*inside, 60)),
            (client, Offer::udp_fixed(*inside, 5001, 60)),
            (&it.outsider.place, Offer::udp(outside, 60)),
            (&it.outsider.place, Offer::udp_fixed(outside, 5001, 60)),
        ];
        let loads = offers.map(|(from, offer)| Steady::start(from, offer));
        let loads = loads.into_iter().collect::<Result<Vec<_>>>()?;
        loads.iter().try_for_each(|load| load.more(60))?;
        it.netd.netd(&format!("sandbox rm {}", first.name))?;
        let gone = Instant::now();
        loads.iter().try_for_each(|load| load.more(60))?;
        for load in loads {
            let tally = load.finish()?;
            tally.flawless(150)?;
            ensure!(tally.since(gone).by().keys().eq([&last.name]), "{tally}");
        }
        Ok(())
    });
}
