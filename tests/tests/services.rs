//! Services on one host, as clients and users see them: the address of their own, their names, published ports, what is
//! refused, and what changes while they serve.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::{RData, RecordType};
use netd_tests::backend::echoes;
use netd_tests::query::{self, Resolver};
use netd_tests::refusal::{of_tcp as refused, of_udp as refused_udp};
use netd_tests::{Backend, Daemon, Host, Lab, Place, Setup, eventually, scenario};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

fn vip(netd: &Daemon, service: &str) -> Result<Ipv4Addr> {
    let shown = netd.inspect("service", service)?;
    Ok(shown["VIP"].as_str().context("a VIP")?.parse()?)
}

fn vip6(netd: &Daemon, service: &str) -> Result<Ipv6Addr> {
    let shown = netd.inspect("service", service)?;
    Ok(shown["VIP6"].as_str().context("a VIP")?.parse()?)
}

/// Who answers there: backends say their name at once to whoever asks for a page.
fn page(from: &Place, to: SocketAddr) -> Result<String> {
    let mut stream = from.connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split("\r\n\r\n").nth(1).context("a body")?;
    Ok(body.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A daemon that has the kernel lead clients to services in this way: BPF (`sk_lookup`), or without it (`tproxy`).
fn daemon_by(host: &Host, way: &str) -> Result<Daemon> {
    if way == "tproxy" {
        host.filter_bridges(false)?;
    }
    let config = format!("[publish]\nsteer = \"{way}\"\n");
    host.daemon_with(Setup { config, ..Setup::default() })
}

fn names(from: &Place, name: &str) -> Result<BTreeSet<IpAddr>> {
    Ok(Resolver::new(from)?.addresses(name)?.into_iter().collect())
}

fn states(netd: &Daemon, service: &str) -> Result<Vec<(String, String)>> {
    let shown = netd.inspect("service", service)?;
    let endpoints = shown["Endpoints"].as_array().context("endpoints")?.iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut states: Vec<_> =
        endpoints.map(|endpoint| (text(&endpoint["Sandbox"]), text(&endpoint["State"]))).collect();
    states.sort();
    Ok(states)
}

#[test]
fn a_service_answers_at_its_own_address_on_every_port() {
    scenario(|lab| every_port(lab, "sk_lookup"));
}

#[test]
fn a_service_answers_at_its_own_address_without_bpf() {
    scenario(|lab| every_port(lab, "tproxy"));
}

fn every_port(lab: &Lab, way: &str) -> Result<()> {
    let host = lab.host("n1")?;
    let netd = daemon_by(&host, way)?;
    // A server of the host's own on every address of both families is not met at the service's.
    let _of_host = (host.listen((Ipv6Addr::UNSPECIFIED, 9000))?, host.udp((Ipv6Addr::UNSPECIFIED, 9000))?);
    netd.netd("network create app --ipv6")?;
    netd.netd("network create other --ipv6")?;
    netd.netd("service create web --network app")?;
    let (v4, v6) = (vip(&netd, "web")?, vip6(&netd, "web")?);
    let client = netd.create("client", "--network app")?;
    let stranger = netd.create("stranger", "--network other")?;
    for to in [SocketAddr::from((v4, 80)), (v6, 80).into(), (v4, 9000).into(), (v6, 9000).into()] {
        for from in [&client, &host] {
            refused(from, to).context("nobody answers for it yet")?;
            refused_udp(from, to).context("nobody answers for it yet")?;
        }
        ensure!(stranger.connect(to).is_err(), "{to} is not for another network");
    }

    let one = Backend::start(&netd, "web1", "--service web")?;
    let two = Backend::start(&netd, "web2", "--service web")?;
    for to in [SocketAddr::from((v4, 80)), (v6, 80).into()] {
        let mut met = BTreeSet::new();
        for _ in 0..4 {
            met.insert(page(&client, to)?);
        }
        ensure!(met == BTreeSet::from(["web1".into(), "web2".into()]), "{to} is shared out: {met:?}");
        page(&host, to).context("from the host")?;
        page(&one.place, to).context("from an endpoint of its own")?;
        page(&two.place, to).context("from an endpoint of its own")?;
        ensure!(stranger.connect(to).is_err(), "{to} is not for another network");
        let datagrams = SocketAddr::new(to.ip(), 7000);
        for from in [&client, &one.place] {
            echoes(from, datagrams)?;
        }
    }
    // A port that nobody has is refused by the endpoint, and the client is told at once.
    ensure!(client.connect((v4, 81)).and_then(|mut stream| stream.read(&mut [0])).is_err());
    ensure!(client.connect((v4, 9000)).and_then(|mut stream| stream.read(&mut [0])).is_err());
    ensure!(states(&netd, "web")? == [("web1".into(), "ready".into()), ("web2".into(), "ready".into())]);

    netd.netd("sandbox rm -f web1 web2")?;
    refused(&client, (v4, 80)).context("nobody answers for it any more")?;
    refused_udp(&client, (v6, 7000)).context("nobody answers for it any more")?;
    netd.netd("service rm web")?;
    ensure!(names(&client, "web").map_or(true, |found| found.is_empty()), "its name went with it");
    ensure!(!host.look("ip addr")?.contains(&format!("{v4}/")), "its address went with it");
    Ok(())
}

#[test]
fn declared_ports_alone_are_served() {
    scenario(|lab| declared_ports(lab, "sk_lookup"));
}

#[test]
fn declared_ports_alone_are_served_without_bpf() {
    scenario(|lab| declared_ports(lab, "tproxy"));
}

fn declared_ports(lab: &Lab, way: &str) -> Result<()> {
    let host = lab.host("n1")?;
    let netd = daemon_by(&host, way)?;
    netd.netd("network create app")?;
    netd.netd("service create web --network app --port http=8080:80 --port 7000/udp")?;
    let web = Backend::start(&netd, "web1", "--service web")?;
    let client = netd.create("client", "--network app")?;
    let v4 = vip(&netd, "web")?;
    let _of_host = host.listen((Ipv4Addr::UNSPECIFIED, 9000))?;
    ensure!(page(&client, (v4, 8080).into())? == web.name);
    [&client, &host.place].iter().try_for_each(|from| echoes(from, (v4, 7000)))?;
    for port in [80, 7000, 9000] {
        refused(&client, (v4, port))?;
        refused(&host, (v4, port))?;
    }
    let _of_host_udp = host.udp((Ipv4Addr::UNSPECIFIED, 7001))?;
    refused_udp(&client, (v4, 7001))?;
    refused_udp(&host, (v4, 7001))?;

    let srv = Resolver::new(&client)?.ask("_http._tcp.web", RecordType::SRV)?;
    let found = srv.answers.iter().find_map(|record| match &record.data {
        RData::SRV(srv) => Some((srv.port, srv.target.to_string())),
        _ => None,
    });
    ensure!(
        found.as_ref().is_some_and(|(port, target)| *port == 8080 && target.starts_with("web.")),
        "{found:?}"
    );
    netd.netd("service update web --port-add 81:80 --port-rm 8080")?;
    ensure!(page(&client, (v4, 81).into())? == web.name);
    refused(&client, (v4, 8080))
}

#[test]
fn names_lead_to_the_address_the_endpoints_or_another_name() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("service create web --network app")?;
        netd.netd("service create turns --network app --endpoint-mode dnsrr")?;
        netd.netd("service create away --network app --external-name web.app")?;
        let client = netd.create("client", "--network app")?;
        let mut addresses = BTreeSet::new();
        for name in ["web1", "web2", "turn1", "turn2"] {
            let service = if name.starts_with("web") { "web" } else { "turns" };
            netd.create(name, &format!("--service {service}"))?;
            let shown = netd.inspect("sandbox", name)?;
            let address: IpAddr = shown["NetworkSettings"]["Networks"]["app"]["IPAddress"]
                .as_str()
                .context("an address")?
                .parse()?;
            if service == "turns" {
                addresses.insert(address);
            }
        }
        let v4: IpAddr = vip(&netd, "web")?.into();
        ensure!(names(&client, "web")? == BTreeSet::from([v4]));
        ensure!(names(&client, "tasks.web")?.len() == 2);
        ensure!(names(&client, "turns")? == addresses && names(&client, "tasks.turns")? == addresses);
        let first = || Ok::<_, anyhow::Error>(Resolver::new(&client)?.addresses("turns")?[0]);
        eventually(PATIENCE, "the answers rotate", || {
            let (one, other) = (first()?, first()?);
            ensure!(one != other);
            Ok(())
        })?;
        let alias = Resolver::new(&client)?.ask("away", RecordType::A)?;
        ensure!(query::addresses(&alias).contains(&v4), "{alias:?}");

        netd.netd("service drain turns turn1")?;
        ensure!(names(&client, "turns")?.len() == 1, "one that drains gets no new clients");
        netd.netd("service drain turns turn2")?;
        ensure!(names(&client, "turns")? == addresses, "unless nobody else is left");
        netd.netd("service drain --undo turns turn1")?;
        ensure!(names(&client, "turns")?.len() == 1);
        netd.netd("sandbox rm -f turn1 turn2")?;
        let nobody = Resolver::new(&client)?.ask("turns", RecordType::A)?;
        ensure!(nobody.answers.is_empty(), "{nobody:?}");
        Ok(())
    });
}

#[test]
fn published_ports_lead_to_endpoints_and_follow_updates() {
    scenario(|lab| published_ports(lab, "sk_lookup"));
}

#[test]
fn published_ports_lead_to_endpoints_without_bpf() {
    scenario(|lab| published_ports(lab, "tproxy"));
}

fn published_ports(lab: &Lab, way: &str) -> Result<()> {
    let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
    let netd = daemon_by(&host, way)?;
    netd.netd("network create app --ipv6")?;
    netd.netd("service create web --network app -p 8080:80")?;
    let web = Backend::start(&netd, "web1", "--service web")?;
    let at = |port| [SocketAddr::from((host.v4, port)), (host.v6, port).into()];
    for to in at(8080) {
        ensure!(page(&outsider, to)? == web.name);
    }
    // What is there already is no change; what contradicts it is refused, and changes nothing.
    netd.netd("service update web --publish-add 8080:80")?;
    let before = netd.inspect("service", "web")?;
    netd.try_netd("service update web --publish-add 9090:80 --publish-add 8080:20")?
        .refused(1, "service web")?;
    netd.try_netd("service update web --publish-add 9090:80 --publish-add 9090:20")?
        .refused(1, "service web")?;
    ensure!(netd.inspect("service", "web")? == before);
    refused(&outsider, (host.v4, 9090))?;

    netd.netd("service update web --publish-add 9090:7000 --publish-add target=80")?;
    let shown = netd.inspect("service", "web")?;
    ensure!(shown["Ports"].as_array().is_some_and(|ports| ports.len() == 3), "{shown}");
    ensure!(page(&outsider, (host.v4, 8080).into())? == web.name);
    outsider.connect((host.v4, 9090)).context("both answer")?;
    netd.netd("service update web --publish-rm 80")?;
    refused(&outsider, (host.v4, 8080))?;

    // Who holds a port is told, whichever of the two came first.
    netd.create("plain", "-p 8081:80")?;
    netd.try_netd("service update web --publish-add 8081:80")?.refused(1, "sandbox plain")?;
    netd.try_netd("sandbox create more -p 9090:80")?.refused(1, "service web")?;
    let _foreign = host.listen((Ipv4Addr::UNSPECIFIED, 8082))?;
    netd.try_netd("service create x --network app -p 8082:80")?.refused(1, "another program has it")?;

    netd.netd("service rm web")?;
    netd.netd("service create next --network app -p 8080:80 -p 9090:7000")?;
    netd.create("next1", "--service next").map(drop)
}

#[test]
fn a_port_in_host_mode_is_there_while_an_endpoint_is() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.netd("network create app")?;
        netd.netd(
            "service create web --network app -p published=8080,target=80,mode=host --endpoint-mode dnsrr",
        )?;
        refused(&host, (Ipv4Addr::LOCALHOST, 8080))?;
        let web = Backend::start(&netd, "web1", "--service web")?;
        ensure!(page(&host, (Ipv4Addr::LOCALHOST, 8080).into())? == web.name);
        netd.netd("sandbox rm -f web1")?;
        refused(&host, (Ipv4Addr::LOCALHOST, 8080))?;
        netd.try_netd("sandbox create x -p 8080:80")?.refused(1, "service web").map(drop)
    });
}

#[test]
fn backends_outside_are_reached_at_their_own_port() {
    scenario(|lab| {
        let (host, outside) = (lab.host("n1")?, lab.host("outside")?);
        let netd = host.daemon()?;
        netd.netd("network create app")?;
        netd_tests::traffic::serve(outside.listen((Ipv4Addr::UNSPECIFIED, 5432))?);
        netd.netd(&format!("service create db --network app --backend {}:5432", outside.v4))?;
        let client = netd.create("client", "--network app")?;
        let v4 = vip(&netd, "db")?;
        for port in [5432, 80] {
            netd_tests::traffic::exchange(&client, (v4, port).into(), 1, 10_000, 10_000)?;
        }
        netd.netd(&format!("service update db --backend-rm {}:5432", outside.v4))?;
        refused(&client, (v4, 80))
    });
}

#[test]
fn a_rolling_replacement_fails_nobody() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("service create web --network app --drain 5s")?;
        let mut old = vec![
            Backend::start(&netd, "old1", "--service web")?,
            Backend::start(&netd, "old2", "--service web")?,
        ];
        let client = netd.create("client", "--network app")?;
        let to = SocketAddr::from((vip(&netd, "web")?, 80));
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (ended, from) = (std::sync::Arc::clone(&stop), client);
        let load = std::thread::spawn(move || {
            let mut pages = 0;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) || pages <= 20 {
                page(&from, to).with_context(|| format!("page {pages}"))?;
                pages += 1;
            }
            Ok::<_, anyhow::Error>(pages)
        });
        let mut new = Vec::new();
        for name in ["new1", "new2"] {
            new.push(Backend::start(&netd, name, "--service web")?);
            let gone = old.remove(0);
            netd.netd(&format!("sandbox rm {}", gone.name))?;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let pages = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        ensure!(pages > 20, "{pages}");
        let met: Vec<String> = states(&netd, "web")?.into_iter().map(|(name, _)| name).collect();
        ensure!(met == ["new1", "new2"], "{met:?}");
        Ok(())
    });
}

#[test]
fn an_endpoint_goes_when_its_connections_have_ended() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("service create web --network app --drain 60s")?;
        let one = Backend::start(&netd, "web1", "--service web")?;
        let client = netd.create("client", "--network app")?;
        let v4 = vip(&netd, "web")?;
        let held: TcpStream = client.connect((v4, 7000))?;
        eventually(PATIENCE, "the connection is seen", || {
            ensure!(netd.inspect("service", "web")?["Endpoints"][0]["ActiveConnections"] == 1);
            Ok(())
        })?;
        let _two = Backend::start(&netd, "web2", "--service web")?;
        let removal = netd.place.start("netd sandbox rm web1")?;
        eventually(PATIENCE, "it drains", || {
            ensure!(states(&netd, "web")?[0] == ("web1".into(), "draining".into()));
            Ok(())
        })?;
        for _ in 0..4 {
            ensure!(page(&client, (v4, 80).into())? == "web2", "no new connections");
        }
        ensure!(removal.runs(), "it waits for the old one");
        drop(held);
        ensure!(removal.wait(PATIENCE)? == 0);
        ensure!(states(&netd, "web")? == [("web2".into(), "ready".into())]);
        drop(one);
        Ok(())
    });
}

#[test]
fn a_removal_that_the_daemon_did_not_live_to_see_goes_on_with_the_next() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("service create web --network app --drain 60s")?;
        let one = Backend::start(&netd, "web1", "--service web")?;
        let _two = Backend::start(&netd, "web2", "--service web")?;
        let client = netd.create("client", "--network app")?;
        let v4 = vip(&netd, "web")?;
        let mut held = Vec::new();
        eventually(PATIENCE, "one connection leads to each", || {
            held.push(client.connect((v4, 7000))?);
            let shown = netd.inspect("service", "web")?;
            let open = shown["Endpoints"].as_array().into_iter().flatten();
            ensure!(open.filter(|one| one["ActiveConnections"].as_u64() > Some(0)).count() == 2, "{shown}");
            Ok(())
        })?;
        let removal = netd.place.start("netd sandbox rm web1")?;
        eventually(PATIENCE, "it drains", || {
            ensure!(states(&netd, "web")?[0] == ("web1".into(), "draining".into()));
            Ok(())
        })?;
        netd.kill()?;
        ensure!(removal.wait(PATIENCE)? == 1, "who has asked is told that the daemon is gone");
        netd.start()?;
        for _ in 0..4 {
            ensure!(page(&client, (v4, 80).into())? == "web2", "no new connections");
        }
        ensure!(states(&netd, "web")?[0] == ("web1".into(), "draining".into()), "the old one goes on");
        // Told to end it says so, and comes back to it.
        netd.terminate()?;
        netd.start()?;
        drop(held);
        eventually(PATIENCE, "it is removed", || {
            ensure!(states(&netd, "web")? == [("web2".into(), "ready".into())]);
            netd.try_netd("sandbox inspect web1")?.refused(1, "web1").map(drop)
        })?;
        drop(one);
        Ok(())
    });
}

#[test]
fn services_outlive_both_processes() {
    scenario(|lab| outlives(lab, "sk_lookup"));
}

#[test]
fn services_outlive_both_processes_without_bpf() {
    scenario(|lab| outlives(lab, "tproxy"));
}

fn outlives(lab: &Lab, way: &str) -> Result<()> {
    let host = lab.host("n1")?;
    let netd = daemon_by(&host, way)?;
    netd.netd("network create app --ipv6")?;
    netd.netd("service create web --network app -p 8080:80 --port 80")?;
    let web = Backend::start(&netd, "web1", "--service web")?;
    let client = netd.create("client", "--network app")?;
    let (v4, v6) = (vip(&netd, "web")?, vip6(&netd, "web")?);
    let check = |what: &str| -> Result<()> {
        for to in [SocketAddr::from((v4, 80)), (v6, 80).into()] {
            ensure!(page(&client, to).with_context(|| format!("{to} after {what}"))? == web.name);
        }
        ensure!(page(&host, (host.v4, 8080).into())? == web.name, "published, after {what}");
        refused(&client, (v4, 81)).with_context(|| format!("after {what}"))
    };
    check("the beginning")?;
    netd.kill()?;
    check("the death of the control plane")?;
    // Taken off while nobody looks, and one that nobody has asked for.
    let device = host.look("ip -o addr")?;
    let device =
        device.lines().find(|line| line.contains(&format!(" {v4}/"))).context("the address is there")?;
    let device = device.split_whitespace().nth(1).context("a device")?;
    host.sh(&format!("ip addr del {v4}/32 dev {device}"))?;
    let mut stray = v4.octets();
    stray[3] ^= 1;
    let stray = Ipv4Addr::from(stray);
    host.sh(&format!("ip addr add {stray}/32 dev {device}"))?;
    netd.start()?;
    check("its return")?;
    ensure!(!host.look("ip addr")?.contains(&format!("{stray}/")), "what no record knows is taken off");

    // Without an endpoint, too: programs of the host do not answer there, and the next endpoint does.
    netd.netd("sandbox rm -f web1")?;
    let _of_host = host.listen((Ipv4Addr::UNSPECIFIED, 80))?;
    refused(&client, (v4, 80))?;
    netd.kill_dataplane()?;
    eventually(PATIENCE, "another data plane is there", || netd.netd("service inspect web").map(drop))?;
    refused(&client, (v4, 80)).context("after the death of the data plane")?;
    netd.kill()?;
    netd.start()?;
    refused(&client, (v4, 80)).context("after another start")?;
    let next = Backend::start(&netd, "web2", "--service web")?;
    ensure!(page(&client, (v4, 80).into())? == next.name);
    Ok(())
}

#[test]
fn every_setting_of_a_service_can_be_changed_and_taken_back() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --ipv6 --subnet 10.9.0.0/24")?;
        netd.netd("service create web --network app --vip 10.9.0.250 --port 80 --drain 10s")?;
        netd.netd("service update web --drain none")?;
        let before = netd.inspect("service", "web")?;
        ensure!(before["Drain"].is_null(), "{before}");
        for (there, back) in [
            ("--policy maglev", "--policy round-robin"),
            ("--affinity client-ip:60", "--affinity none"),
            ("--health tcp:80 --health-interval 1s --health-rise 3", "--health none"),
            ("--drain 30s", "--drain none"),
            ("--prefer-local", "--prefer-local false"),
            ("--east-west connect", "--east-west relay"),
            ("--port-add http=8080:80", "--port-rm 8080"),
            ("--publish-add 9000:80", "--publish-rm 9000:80"),
            ("--backend-add 192.0.2.99:80,weight=3", "--backend-rm 192.0.2.99:80"),
            ("--vip 10.9.0.77", "--vip 10.9.0.250"),
            ("--label a=b", "--label-rm a"),
        ] {
            netd.netd(&format!("service update web {there}"))?;
            let changed = netd.inspect("service", "web")?;
            ensure!(changed != before, "{there}: nothing has changed: {changed}");
            netd.netd(&format!("service update web {back}"))?;
            let after = netd.inspect("service", "web")?;
            ensure!(after == before, "{there}, {back}: {after} is not {before}");
        }
        Ok(())
    });
}
