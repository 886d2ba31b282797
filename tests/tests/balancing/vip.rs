//! Where a service answers, and where it refuses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use netd_tests::backend::{ask, vip};
use netd_tests::load::talk;
use netd_tests::query::{Resolver, addresses};
use netd_tests::{Backend, Daemon, Lab, Place, eventually, refusal, scenario};

/// A daemon with the network `app`, a client on it, and the service `web` with two backends.
fn shop(lab: &Lab, flags: &str) -> Result<(Daemon, Place, [Backend; 2])> {
    let netd = lab.host("n1")?.daemon()?;
    netd.netd("network create app --ipv6")?;
    netd.netd(&format!("service create web --network app {flags}"))?;
    let backend = |name| Backend::start(&netd, name, "--network app --service web");
    let backends = [backend("web1")?, backend("web2")?];
    let client = netd.create("client", "--network app")?;
    Ok((netd, client, backends))
}

#[test]
fn a_vip_answers_neighbours_and_the_host_in_both_families_on_any_port() {
    scenario(|lab| {
        let (netd, client, _backends) = shop(lab, "")?;
        netd.netd("network create other --ipv6")?;
        let stranger = netd.create("stranger", "--network other")?;
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (vip(&netd, "web")?, vip(&netd, "web")?);
        let names = Resolver::new(&client)?;
        ensure!(names.addresses("web")? == [IpAddr::from(v4)], "the name is the VIP");
        ensure!(
            addresses(&names.ask("web.app", RecordType::AAAA)?) == [IpAddr::from(v6)],
            "in both families"
        );
        ensure!(names.addresses("tasks.web")?.len() == 2, "tasks.web is the backends");
        for to in [SocketAddr::from((v4, 7000)), (v6, 7000).into()] {
            for from in [&client, &netd.place] {
                let mut by: Vec<_> =
                    (0..4).map(|_| Ok(ask(from, to)?.by)).collect::<Result<_>>().context("a VIP")?;
                by.sort();
                ensure!(by == ["web1", "web1", "web2", "web2"], "in turns: {by:?}");
            }
            let page = client.enter(|| talk::fetch((to.ip(), 80).into(), "/", Duration::from_secs(5)))??;
            ensure!(page.by.starts_with("web"), "another port of the VIP: {page:?}");
            let socket =
                client.udp(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse::<SocketAddr>()?)?;
            socket.connect(to)?;
            let echoed = talk::datagram(&socket, 1, 1000, Duration::from_secs(1))?;
            ensure!(echoed.by.starts_with("web"), "datagrams: {echoed:?}");
            ensure!(ask(&stranger, to).is_err(), "not from another network");
        }
        Ok(())
    });
}

#[test]
fn a_backend_reaches_itself_and_its_fellow_by_the_vip() {
    scenario(|lab| {
        let (netd, _client, [one, two]) = shop(lab, "")?;
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (vip(&netd, "web")?, vip(&netd, "web")?);
        for from in [&one.place, &two.place] {
            for to in [SocketAddr::from((v4, 7000)), (v6, 7000).into()] {
                let mut by: Vec<_> = (0..4).map(|_| Ok(ask(from, to)?.by)).collect::<Result<_>>()?;
                by.sort();
                ensure!(by == ["web1", "web1", "web2", "web2"], "{} hears {by:?}", from.name);
            }
        }
        Ok(())
    });
}

#[test]
fn what_a_vip_does_not_serve_is_refused_at_once() {
    scenario(|lab| {
        let (netd, client, backends) = shop(lab, "--port 80:80 --port 7000:7000/udp")?;
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (vip(&netd, "web")?, vip(&netd, "web")?);
        // Something of the host that listens on every address is not what a VIP leads to.
        let _host = netd.place.listen(([0, 0, 0, 0], 9999))?;
        let refused = |to: SocketAddr| -> Result<()> {
            refusal::of_tcp(&client, to)?;
            let socket =
                client.udp(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse::<SocketAddr>()?)?;
            socket.connect(to)?;
            let failure = talk::datagram(&socket, 1, 100, Duration::from_secs(1)).err();
            ensure!(failure.as_ref().is_some_and(|one| one.how == "refused"), "{to}/udp: {failure:?}");
            Ok(())
        };
        for address in [IpAddr::from(v4), v6.into()] {
            refused((address, 9999).into())?;
            client.enter(|| talk::fetch((address, 80).into(), "/", Duration::from_secs(5)))??;
        }
        backends.into_iter().try_for_each(Backend::remove)?;
        for address in [IpAddr::from(v4), v6.into()] {
            refused((address, 9999).into())?;
            refusal::of_tcp(&client, (address, 80)).context("no backend is left")?;
        }
        Ok(())
    });
}

#[test]
fn vips_have_a_band_of_their_own_in_the_subnet() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --subnet 10.77.0.0/24")?;
        netd.netd("service create one --network app")?;
        netd.netd("service create two --network app --vip 10.77.0.250")?;
        let one: Ipv4Addr = vip(&netd, "one")?;
        ensure!(one.octets()[3] >= 239, "the last sixteen: {one}");
        ensure!(vip::<Ipv4Addr>(&netd, "two")? == Ipv4Addr::new(10, 77, 0, 250), "as asked");
        netd.try_netd("service create three --network app --vip 10.77.0.250")?.refused(1, "two")?;
        netd.try_netd(&format!("sandbox create box --network app --ip {one}"))?.refused(1, "one")?;
        ensure!(netd.netd("service ls -q")?.stdout.lines().count() == 2, "nothing came of what was refused");
        // On a small network sandboxes are refused before they are given what is kept for services.
        netd.netd("network create small --subnet 10.78.0.0/27")?;
        netd.netd("service create late --network small")?;
        let kept: Ipv4Addr = vip(&netd, "late")?;
        let full = (1..=30).try_for_each(|number| -> Result<(), Option<anyhow::Error>> {
            netd.create(&format!("box{number}"), "--network small").map_err(Some)?;
            let last: Ipv4Addr = netd.address(&format!("box{number}"), "small").map_err(Some)?;
            if last < kept { Ok(()) } else { Err(None) }
        });
        let refusal =
            full.err().context("it is never full")?.context("a sandbox got what is kept for services")?;
        ensure!(refusal.to_string().contains("small"), "{refusal:#}");
        netd.netd("service create later --network small")?;
        netd.netd("service rm one two late later")?;
        netd.netd("network rm app").map(drop)
    });
}

#[test]
fn names_without_a_vip_rotate_and_lead_elsewhere() {
    scenario(|lab| {
        let (netd, client, _backends) = shop(lab, "--endpoint-mode dnsrr")?;
        let names = Resolver::new(&client)?;
        let first: Vec<_> = (0..10).map(|_| Ok(names.addresses("web")?[0])).collect::<Result<_>>()?;
        let of_one: Ipv4Addr = netd.address("web1", "app")?;
        let count = first.iter().filter(|address| **address == of_one).count();
        ensure!(count == 5 && names.addresses("web")?.len() == 2, "in turns: {first:?}");
        netd.netd("service create db --network app --external-name db.example.com")?;
        let answer = names.ask("db", RecordType::CNAME)?;
        ensure!(format!("{:?}", answer.answers).contains("db"), "{answer:?}");
        let outside = client.sh("dig @127.0.0.11 +short db CNAME")?.stdout;
        ensure!(outside.trim() == "db.example.com.", "{outside}");
        Ok(())
    });
}

#[test]
fn srv_records_tell_the_ports_of_a_service() {
    scenario(|lab| {
        let (netd, client, _backends) = shop(lab, "--port http=80:80 --port 7000:7000/udp")?;
        let told = client.sh("dig @127.0.0.11 +short _http._tcp.web SRV")?.stdout;
        ensure!(told.trim().split(' ').nth(2) == Some("80"), "{told}");
        let v4: Ipv4Addr = vip(&netd, "web")?;
        let target = told.trim().split(' ').nth(3).context("a target")?.trim_end_matches('.');
        ensure!(Resolver::new(&client)?.addresses(target)? == [IpAddr::from(v4)], "{told}");
        Ok(())
    });
}

#[test]
fn backends_that_are_no_sandboxes_are_led_to() {
    scenario(|lab| {
        let outside = lab.host("old")?;
        let echo = outside.start("lab_echo --name old --tcp 7000")?;
        echo.says("ready")?;
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd(&format!(
            "service create web --network app --port 80:7000 --backend {}:7000,weight=1",
            outside.v4
        ))?;
        let client = netd.create("client", "--network app")?;
        let v4: Ipv4Addr = vip(&netd, "web")?;
        ensure!(ask(&client, (v4, 80))?.by == "old", "the old machine answers");
        let _backend = Backend::start(&netd, "new", "--network app --service web")?;
        netd.netd(&format!("service update web --backend-rm {}:7000", outside.v4))?;
        eventually(Duration::from_secs(2), "the sandbox alone answers", || {
            for _ in 0..4 {
                ensure!(ask(&client, (v4, 80))?.by == "new", "the old one still does");
            }
            Ok(())
        })
    });
}

#[test]
fn a_published_port_of_a_service_is_open_where_it_was_asked_for_and_nowhere_else() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let (netd, _client, _backends) =
            shop(lab, "-p 8080:7000 -p 192.0.2.2:8081:7000 -p 127.0.0.1:8082:7000 -p [::1]:8083:7000")?;
        let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 2), "2001:db8:2::2".parse::<Ipv6Addr>()?);
        for address in [IpAddr::from(v4), v6.into()] {
            ask(&outsider, (address, 8080))?;
        }
        for address in ["127.0.0.1", "::1"] {
            ask(&netd.place, (address.parse::<IpAddr>()?, 8080))?;
        }
        ask(&outsider, (v4, 8081))?;
        ask(&netd.place, ([127, 0, 0, 1], 8082))?;
        ask(&netd.place, (Ipv6Addr::LOCALHOST, 8083))?;
        let closed = |from: &Place, to: SocketAddr| -> Result<()> {
            ensure!(from.connect(to).is_err(), "{to} is open for {}", from.name);
            Ok(())
        };
        closed(&netd.place, ([127, 0, 0, 1], 8081).into())?;
        closed(&outsider, (v6, 8081).into())?;
        closed(&outsider, (v4, 8082).into())?;
        closed(&netd.place, ([127, 0, 0, 1], 8083).into())?;
        closed(&netd.place, (Ipv6Addr::LOCALHOST, 8082).into())
    });
}
