//! Services whose clients go straight to a backend, over nodes: whom they reach, and what becomes of their sockets when a
//! backend drains, leaves, dies, or its node does.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{ask, becomes, talk, vip};
use netd_tests::load::{Answer, Failure, Offer, Steady, talk as wire};
use netd_tests::{Backend, Place, eventually, scenario};

use crate::stage::{SOON, Stage, everybody, has_ready, stage};

const STRAIGHT: &str = "--east-west connect";

fn places(it: &Stage) -> Result<[SocketAddr; 2]> {
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (vip(it.node(1), "web")?, vip(it.node(1), "web")?);
    Ok([(v4, 7000).into(), (v6, 7000).into()])
}

fn socket(from: &Place, like: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr =
        if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    from.udp((any, 0))
}

/// As a program that asks its resolver, or QUIC: a socket for this partner alone.
fn connected(from: &Place, to: SocketAddr) -> Result<UdpSocket> {
    let socket = socket(from, to)?;
    socket.connect(to)?;
    Ok(socket)
}

fn said(socket: &UdpSocket) -> Result<Answer, Failure> {
    wire::datagram(socket, 7, 1200, Duration::from_secs(1))
}

/// A connected socket of which this one is the backend.
fn led_to(from: &Place, to: SocketAddr, name: &str) -> Result<UdpSocket> {
    eventually(SOON, &format!("a socket is led to {name}"), || {
        let socket = connected(from, to)?;
        let by = said(&socket)?.by;
        ensure!(by == name, "it is led to {by}");
        Ok(socket)
    })
}

/// The program is told, and nothing but connecting again is left to do for it.
fn is_told(socket: &UdpSocket) -> Result<()> {
    eventually(SOON * 2, "its program is told that the backend is gone", || {
        let told = socket.take_error()?.map(|error| error.kind());
        ensure!(told == Some(ErrorKind::ConnectionAborted), "it is told {told:?}");
        Ok(())
    })
}

/// How many of so many connections and flows each has, none of which anybody stands between.
fn shares(from: &Place, to: SocketAddr, rounds: usize) -> Result<BTreeMap<String, usize>> {
    let mut shares = BTreeMap::new();
    for _ in 0..rounds {
        let stream = from.connect(to)?;
        ensure!(stream.peer_addr()? == to, "{} for {to}", stream.peer_addr()?);
        let own = stream.local_addr()?.ip();
        let flow = connected(from, to)?;
        ensure!(flow.peer_addr()? == to, "{} for {to}", flow.peer_addr()?);
        for answer in [ask(from, to)?, said(&flow)?] {
            ensure!(answer.client.ip() == own, "{} is in between", answer.client);
            *shares.entry(answer.by).or_default() += 1;
        }
    }
    Ok(shares)
}

fn only(from: &Place, to: SocketAddr, name: &str) -> Result<()> {
    eventually(SOON, &format!("{} is led to {name} alone", from.name), || {
        let shares = shares(from, to, 6)?;
        ensure!(shares.keys().eq([name]), "{shares:?}");
        Ok(())
    })
}

#[test]
fn clients_go_straight_to_backends_of_all_nodes() {
    scenario(|lab| {
        let mut it = stage(lab, 2, STRAIGHT)?;
        let near = it.node(1).create("near", "--network app")?;
        let far = it.node(3).create("far", "--network app")?;
        for to in places(&it)? {
            for client in [&near, &far, &it.backends[0].place] {
                let shares = shares(client, to, 20)?;
                ensure!(shares.len() == 2 && shares.values().all(|share| *share >= 5), "{shares:?}");
                // Ports that nobody serves: the backend's own kernel says so at once.
                let unserved = SocketAddr::new(to.ip(), 9999);
                let refused = client.connect(unserved).err().context("nothing listens there")?;
                ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
                let flow = connected(client, unserved)?;
                let refused = said(&flow).err().context("nothing listens there")?;
                ensure!(refused.how.contains("refused"), "{refused}");
            }
            // The host, and everybody outside, is relayed as ever.
            ensure!(ask(&it.node(3).place, to)?.by.starts_with("web"), "the host");
        }
        let to = places(&it)?[0];
        it.node(2).netd("service update web --prefer-local")?;
        only(&near, to, "web1")?;
        only(&it.backends[1].place, to, "web2")?;
        eventually(SOON, "both are asked where there is none", || {
            let shares = shares(&far, to, 20)?;
            ensure!(shares.len() == 2, "{shares:?}");
            Ok(())
        })?;
        it.backends.remove(0).remove()?;
        only(&near, to, "web2")
    });
}

#[test]
fn a_client_keeps_its_backend_on_whatever_node_until_that_is_gone() {
    scenario(|lab| {
        let mut it = stage(lab, 3, &format!("{STRAIGHT} --affinity client-ip:600"))?;
        let client = it.node(1).create("client", "--network app")?;
        let to = places(&it)?[0];
        // At every port of the service, and by every transport.
        let first = ask(&client, to)?.by;
        only(&client, to, &first)?;
        let there: Ipv4Addr = vip(it.node(1), "web")?;
        let page = client.look(&format!("curl -s --max-time 5 http://{there}/name"))?;
        ensure!(page.contains(&first), "{page} on the web, {first} elsewhere");
        let at = it.backends.iter().position(|backend| backend.name == first).context("one of them")?;
        it.backends.remove(at).remove()?;
        everybody(&it.cluster, "web", 2)?;
        let second = ask(&client, to)?.by;
        ensure!(second != first, "{first} is gone");
        only(&client, to, &second)
    });
}

#[test]
fn what_is_open_stays_while_a_backend_drains_and_ends_with_it() {
    scenario(|lab| {
        let mut it = stage(lab, 0, STRAIGHT)?;
        let start = |number: usize| {
            Backend::start(it.node(number), &format!("web{number}"), "--network app --service web")
        };
        let leaving = start(2)?;
        everybody(&it.cluster, "web", 1)?;
        let client = it.node(1).create("client", "--network app")?;
        let to = places(&it)?;
        only(&client, to[0], "web2")?;
        let mut open = talk(&client, to[0])?;
        let flows = [led_to(&client, to[0], "web2")?, led_to(&client, to[1], "web2")?];
        // The same partner by its own address, which is nobody's business.
        let address: Ipv4Addr = it.node(2).address("web2", "app")?;
        let own = connected(&client, (address, 7000).into())?;

        it.backends.push(start(3)?);
        everybody(&it.cluster, "web", 2)?;
        it.node(3).netd("service drain web web2")?;
        becomes(it.node(1), "web", "web2", "draining")?;
        only(&client, to[0], "web3")?;
        only(&client, to[1], "web3")?;
        ensure!(open.say(1, 5000)?.by == "web2", "the connection goes on");
        for flow in flows.iter().chain([&own]) {
            ensure!(said(flow)?.by == "web2", "and the flows");
        }
        leaving.remove()?;
        flows.iter().try_for_each(is_told)?;
        ensure!(own.take_error()?.is_none(), "it has chosen that partner itself");
        let ended = open.say(2, 10).err().context("the backend is gone")?;
        ensure!(ended.how != "timed out", "told at once: {ended}");
        for (flow, to) in flows.iter().zip(to) {
            flow.connect(to)?;
            ensure!(said(flow)?.by == "web3", "the socket can be used again");
        }
        it.backends.remove(0).remove()?;
        is_told(&flows[0])?;
        eventually(SOON, "refused when nobody is left", || {
            let refused = client.connect(to[0]).err().context("it is open")?;
            ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
            Ok(())
        })
    });
}

#[test]
fn a_backend_killed_on_another_node_is_left_as_its_check_finds_out() {
    scenario(|lab| {
        let check = "--health http://:80/health --health-interval 200ms --health-timeout 500ms";
        let flags = format!("{STRAIGHT} {check}");
        let mut it = stage(lab, 2, &flags)?;
        let client = it.node(1).create("client", "--network app")?;
        let to = places(&it)?[0];
        let flow = led_to(&client, to, "web2")?;
        it.backends[1].kill()?;
        becomes(it.node(1), "web", "web2", "failing")?;
        only(&client, to, "web1")?;
        // It was refused by the dead one's kernel, or is told so now.
        eventually(SOON, "a socket that is told so can go on", || {
            flow.take_error()?;
            flow.connect(to)?;
            ensure!(said(&flow)?.by == "web1", "not yet");
            Ok(())
        })?;
        it.backends[1].again()?;
        becomes(it.node(1), "web", "web2", "ready")?;
        eventually(SOON, "it is asked again", || {
            let shares = shares(&client, to, 10)?;
            ensure!(shares.len() == 2, "{shares:?}");
            Ok(())
        })?;
        // One that hangs is found by its silence, and its flows are led away from it.
        let flow = led_to(&client, to, "web2")?;
        it.backends[1].freeze()?;
        is_told(&flow)?;
        only(&client, to, "web1")?;
        it.backends[1].thaw()
    });
}

#[test]
fn flows_to_a_node_that_dies_are_told_and_new_connections_go_elsewhere() {
    scenario(|lab| {
        let it = stage(lab, 3, STRAIGHT)?;
        let client = it.node(1).create("client", "--network app")?;
        let to = places(&it)?;
        let flows = [led_to(&client, to[0], "web3")?, led_to(&client, to[1], "web3")?];
        let others = [led_to(&client, to[0], "web1")?, led_to(&client, to[0], "web2")?];
        let load = Steady::start(&client, Offer::tcp(to[0], 40))?;
        load.more(40)?;
        let killed = Instant::now();
        it.cluster.kill(it.node(3))?;
        flows.iter().try_for_each(is_told)?;
        let told = Instant::now();
        for (flow, to) in flows.iter().zip(to) {
            flow.connect(to)?;
            ensure!(said(flow)?.by != "web3", "the socket can be used again");
        }
        for flow in &others {
            said(flow).context("the others have noticed nothing")?;
        }
        // Some of them began before, and have been in vain since.
        load.more(160)?;
        let tally = load.finish()?;
        println!("told after {:?}; {tally}", told - killed);
        // Nobody tries the next backend here: who is led to the dead node before its lease is over waits in vain.
        let under_way = tally.during(killed).attempts().len();
        ensure!(tally.before(killed).failed() <= under_way, "{tally}");
        tally.since(told).flawless(80)?;
        [1, 2].iter().try_for_each(|number| has_ready(it.node(*number), "web", 2))?;
        it.cluster.revive(it.node(3))
    });
}
