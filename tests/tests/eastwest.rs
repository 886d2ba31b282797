//! Services with `--east-west connect`: clients of the service's network go straight to a backend and see the service;
//! everybody else is relayed, and neither end of netd is needed for what is open.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{ask, becomes, vip};
use netd_tests::load::wire::{Answer, Question};
use netd_tests::{Backend, Daemon, Host, Place, eventually, scenario};

const SOON: Duration = Duration::from_secs(10);

struct Shop {
    netd: Daemon,
    client: Place,
    /// Where the service answers, in both families.
    at: [SocketAddr; 2],
}

/// The service `web`, with its backends and a client on its network.
fn shop(host: &Host, flags: &str, backends: &[&str]) -> Result<(Shop, Vec<Backend>)> {
    let netd = host.daemon()?;
    netd.netd("network create app --ipv6 --subnet 10.77.0.0/24")?;
    netd.netd(&format!("service create web --network app --east-west connect {flags}"))?;
    let start = |name: &&str| Backend::start(&netd, name, "--network app --service web");
    let backends = backends.iter().map(start).collect::<Result<_>>()?;
    let client = netd.create("client", "--network app")?;
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (vip(&netd, "web")?, vip(&netd, "web")?);
    Ok((Shop { at: [(v4, 7000).into(), (v6, 7000).into()], netd, client }, backends))
}

fn socket(place: &Place, like: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr =
        if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = place.udp((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// A datagram to a name and the answer to it, which has to come from there.
fn datagram(socket: &UdpSocket, to: SocketAddr) -> Result<Answer> {
    let question = Question { seed: 5, length: 900, delay: 0 };
    socket.send_to(&question.bytes(), to)?;
    let mut buffer = vec![0; 65_535];
    let (length, from) = socket.recv_from(&mut buffer).with_context(|| format!("an answer of {to}"))?;
    ensure!((from.ip(), from.port()) == (to.ip(), to.port()), "{to} was asked, and {from} has answered");
    let mut rest = &buffer[..length];
    let answer = Answer::read(&mut rest)?;
    ensure!(question.matches(rest), "other bytes");
    Ok(answer)
}

/// Whom the backend sees: the client itself, where nothing is between them.
fn is_straight(place: &Place, to: SocketAddr) -> Result<bool> {
    let stream = place.connect(to)?;
    ensure!(stream.peer_addr()? == to, "the program sees {} for {to}", stream.peer_addr()?);
    let (seen, own) = (ask(place, to)?.client.ip(), stream.local_addr()?.ip());
    Ok(seen == own)
}

#[test]
fn clients_of_the_network_go_straight_and_all_others_are_relayed() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (Shop { netd, client, at }, backends) = shop(&host, "", &["web1", "web2"])?;
        for to in at {
            ensure!(is_straight(&client, to)?, "a client at {to}");
            ensure!(is_straight(&backends[0].place, to)?, "a backend as a client at {to}");
            ensure!(ask(&netd.place, to)?.by.starts_with("web"), "the host at {to}");
            let mut shares: BTreeMap<String, usize> = BTreeMap::new();
            for _ in 0..100 {
                *shares.entry(ask(&client, to)?.by).or_default() += 1;
            }
            ensure!(shares.len() == 2 && shares.values().all(|share| *share > 20), "{shares:?}");

            let unconnected = socket(&client, to)?;
            let first = datagram(&unconnected, to)?.by;
            for _ in 0..20 {
                ensure!(datagram(&unconnected, to)?.by == first, "a socket stays with its backend");
            }
        }
        netd.netd("service update web --east-west relay")?;
        ensure!(!is_straight(&client, at[0])?, "relayed when that is asked for");
        netd.netd("service update web --east-west connect")?;
        ensure!(is_straight(&client, at[0])?, "and straight again");
        let features = netd.netd("status --format json")?.stdout;
        ensure!(features.contains("\"east-west\""), "status tells of it: {features}");
        Ok(())
    });
}

#[test]
fn nobody_is_led_to_a_backend_that_is_not_there_or_not_well() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let flags = "--health http://:80/health --health-interval 200ms";
        let (Shop { netd, client, at }, mut backends) = shop(&host, flags, &["web1", "web2"])?;
        for name in ["web1", "web2"] {
            becomes(&netd, "web", name, "ready")?;
        }
        let socket = socket(&client, at[0])?;
        let first = datagram(&socket, at[0])?.by;
        let (unwell, well) = if first == "web1" { (0, 1) } else { (1, 0) };
        backends[unwell].switch("/fail")?;
        becomes(&netd, "web", &first, "failing")?;
        for to in at {
            for _ in 0..20 {
                ensure!(ask(&client, to)?.by == backends[well].name, "one is unwell");
            }
        }
        ensure!(datagram(&socket, at[0])?.by == backends[well].name, "datagrams follow at once");
        backends[unwell].switch("/mend")?;
        becomes(&netd, "web", &first, "ready")?;

        let gone = backends.remove(well);
        gone.remove()?;
        for _ in 0..20 {
            ensure!(ask(&client, at[0])?.by == first, "one is gone");
            ensure!(datagram(&socket, at[0])?.by == first, "one is gone");
        }
        backends.remove(0).remove()?;
        let refused = client.connect(at[0]).err().context("nobody is left")?;
        ensure!(refused.kind() == std::io::ErrorKind::ConnectionRefused, "{refused}");
        Ok(())
    });
}

#[test]
fn it_goes_on_whichever_process_dies() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (Shop { netd, client, at }, _backends) = shop(&host, "", &["web1", "web2"])?;
        let (socket, stream) = (socket(&client, at[0])?, client.connect(at[0])?);
        let first = datagram(&socket, at[0])?.by;
        let still = |what: &str| -> Result<()> {
            ensure!(is_straight(&client, at[0])?, "{what}: straight");
            ensure!(datagram(&socket, at[0])?.by == first, "{what}: the socket remembers");
            ensure!(stream.peer_addr()? == at[0], "{what}: the connection remembers");
            Ok(())
        };
        netd.kill()?;
        still("without a control plane")?;
        netd.start()?;
        still("with another control plane")?;
        netd.kill_dataplane()?;
        still("without a data plane")?;
        eventually(SOON, "another data plane serves", || netd.dataplane().map(drop))?;
        netd.ready()?;
        still("with another data plane")?;
        // The answer comes when the new one has what this asks for, and all that came before.
        netd.netd("sandbox create later --network app")?;
        netd.kill()?;
        netd.start()?;
        still("with both anew")?;

        // The new one is in charge, too.
        netd.netd("sandbox rm -f web1")?;
        netd.netd("sandbox rm -f web2")?;
        ensure!(client.connect(at[0]).is_err(), "nobody is left");
        Ok(())
    });
}

#[test]
fn daemons_on_one_machine_do_not_meet() {
    scenario(|lab| {
        let (one, other) = (lab.host("n1")?, lab.host("n2")?);
        let (first, _backends) = shop(&one, "--vip 10.77.0.250", &["web1"])?;
        let (second, _others) = shop(&other, "--vip 10.77.0.250", &["shop2"])?;
        ensure!(first.at[0] == second.at[0], "{} and {}", first.at[0], second.at[0]);
        for (shop, name) in [(&first, "web1"), (&second, "shop2")] {
            ensure!(is_straight(&shop.client, shop.at[0])?, "at {name}");
            ensure!(ask(&shop.client, shop.at[0])?.by == name, "at {name}");
        }
        second.netd.netd("sandbox rm -f shop2")?;
        ensure!(second.client.connect(second.at[0]).is_err(), "its own only backend is gone");
        ensure!(ask(&first.client, first.at[0])?.by == "web1", "the other's is not");
        second.netd.netd("service rm web")?;
        eventually(SOON, "the other daemon's services go on", || {
            ensure!(is_straight(&first.client, first.at[0])?, "straight");
            Ok(())
        })
    });
}
