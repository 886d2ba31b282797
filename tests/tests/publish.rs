//! Published ports: every form, from everywhere, both protocols, both families, live, and what a clash says.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::{Daemon, Host, Place, eventually, scenario, traffic};

#[test]
fn a_port_answers_from_the_host_other_hosts_neighbours_and_itself() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.netd("network create other --ipv6")?;
        let web = netd.create("web", "--network app -p 8080:7000")?;
        traffic::serve(web.listen((Ipv6Addr::UNSPECIFIED, 7000))?); // both families
        let neighbour = netd.create("neighbour", "--network app")?;
        let stranger = netd.create("stranger", "--network other")?;
        let addresses: [SocketAddr; 2] = [(host.v4, 8080).into(), (host.v6, 8080).into()];
        for to in addresses {
            for from in [&host.place, &outsider.place, &neighbour, &stranger, &web] {
                traffic::exchange(from, to, 1, 300_000, 300_000)
                    .with_context(|| format!("{} to {to}", from.name))?;
            }
        }
        traffic::exchange(&host, (Ipv4Addr::LOCALHOST, 8080).into(), 1, 10, 10)?;
        traffic::exchange(&host, (Ipv6Addr::LOCALHOST, 8080).into(), 1, 10, 10)
    });
}

#[test]
fn every_form_of_a_spec_is_understood() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let forms = [
            ("8000:80", "80/tcp -> 0.0.0.0:8000"),
            ("8000:80", "80/tcp -> [::]:8000"),
            ("127.0.0.1:8001:80", "80/tcp -> 127.0.0.1:8001"),
            ("[::1]:8002:80", "80/tcp -> [::1]:8002"),
            ("8003:53/udp", "53/udp -> 0.0.0.0:8003"),
            ("8010-8012:90-92", "91/tcp -> 0.0.0.0:8011"),
            ("8020-8029:93", "93/tcp -> 0.0.0.0:8020"),
            ("127.0.0.1::94", "94/tcp -> 127.0.0.1:"),
            ("95", "95/tcp -> 0.0.0.0:"),
            ("96-97", "97/tcp -> 0.0.0.0:"),
        ];
        for (spec, shown) in forms {
            netd.create("web", &format!("-p {spec}"))?;
            let ports = netd.netd("port web")?.stdout;
            ensure!(ports.contains(shown), "{spec}: wanted {shown}, got {ports}");
            netd.netd("sandbox rm web")?;
        }
        netd.create("some", "--expose 81 --expose 82-83/udp -P")?;
        let ports = netd.netd("port some")?.stdout;
        for port in ["81/tcp", "82/udp", "83/udp"] {
            ensure!(ports.contains(&format!("{port} -> ")), "-P publishes {port}: {ports}");
        }
        let chosen: u16 = host_port(&netd, "some", "81/tcp")?;
        ensure!((49152..=65535).contains(&chosen), "{chosen}");
        Ok(())
    });
}

#[test]
fn wrong_specs_are_refused_by_what_is_wrong() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        for (spec, says) in [
            ("0:80", "0"),
            ("65536:80", "65536"),
            ("8080:0", "0"),
            ("8080:65536", "65536"),
            ("9090-9089:80", "9090-9089"),
            ("8000-8002:80-81", "8000-8002"),
            ("9090-:80", "9090-"),
            ("-9090:80", "-9090"),
            ("8080:80/sctp", "sctp"),
            ("1.2.3:8080:80", "1.2.3"),
            ("2001:db8::1:8080:80", "bracket"),
            ("a:b:c:d", "a:b:c:d"),
            ("web", "web"),
        ] {
            let refused = netd.try_netd(&format!("sandbox create web --publish={spec}"))?;
            ensure!([1, 2].contains(&refused.code) && refused.stderr.contains(says), "{spec}: {refused:?}");
        }
        ensure!(!netd.netd("sandbox ls")?.stdout.contains("web"), "nothing is left of them");
        Ok(())
    });
}

#[test]
fn a_clash_names_the_owner_and_changes_nothing() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let first = netd.create("first", "-p 8080:7000 -p 127.0.1.2:9000:7000 -p 5300:7000/udp")?;
        traffic::serve(first.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        for spec in ["8080:80", "127.0.0.1:8080:80", "[::1]:8080:80", "5300:80/udp", "8079-8081:79-81"] {
            netd.try_netd(&format!("sandbox create second -p {spec}"))?.refused(1, "first")?;
        }
        let foreign = host.listen((Ipv4Addr::LOCALHOST, 8090))?;
        netd.try_netd("sandbox create second -p 8090:80")?.refused(1, "8090")?;
        drop(foreign);
        ensure!(!netd.netd("sandbox ls")?.stdout.contains("second "), "no half-made sandbox");
        // The same port on another address, for another protocol, or after the holder has gone, is free.
        netd.create("third", "-p 127.0.1.3:9000:80 -p 8080:80/udp -p 5300:80/tcp")?;
        netd.create("fourth", "-p 8080-8089:80")?;
        ensure!(host_port(&netd, "fourth", "80/tcp")? == 8081, "the first free one of the range");
        traffic::exchange(&host, (Ipv4Addr::LOCALHOST, 8080).into(), 1, 10, 10)?;
        netd.netd("sandbox rm first")?;
        netd.create("fifth", "-p 127.0.1.2:9000:80").map(drop)
    });
}

#[test]
fn ports_come_and_go_while_the_sandbox_works() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create app")?;
        let web = netd.create("web", "--network app -p 8080:7000")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        let (kept, live): (SocketAddr, SocketAddr) = ((host.v4, 8080).into(), (host.v4, 8081).into());
        let steady = traffic::Download::start(&outsider, kept, 4 << 20, Duration::from_secs(2))?;
        ensure!(outsider.connect(live).is_err(), "not yet published");
        netd.netd("publish web 8081:7000")?;
        traffic::exchange(&outsider, live, 1, 1000, 1000)?;
        netd.netd("unpublish web 8081:7000")?;
        refused_at_once(&outsider, live)?;
        netd.try_netd("unpublish web 8081:7000")?.refused(1, "8081")?;
        netd.try_netd("publish web 8080:7000")?.refused(1, "web")?;
        steady.finish()?;
        netd.netd("sandbox rm web")?;
        refused_at_once(&outsider, kept)
    });
}

#[test]
fn a_refusing_or_missing_backend_is_a_reset_at_once() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.create("web", "-p 8080:7000")?;
        refused_at_once(&outsider, (host.v4, 8080).into())?;
        refused_at_once(&host, (Ipv6Addr::LOCALHOST, 8080).into())
    });
}

#[test]
fn half_closed_idle_and_parallel_connections_all_work() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let web = netd.create("web", "-p 8080:7000 -p 8081:7001")?;
        let to = SocketAddr::from((host.v4, 8080));
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        // Server side of the half-close: reads to the end, then answers with the length.
        let counter = web.listen((Ipv4Addr::UNSPECIFIED, 7001))?;
        let counted = std::thread::spawn(move || -> Result<()> {
            let (mut stream, _) = counter.accept()?;
            let length = stream.read_to_end(&mut Vec::new())?;
            Ok(stream.write_all(length.to_string().as_bytes())?)
        });
        let mut idle = outsider.connect(to)?;
        let mut half = outsider.connect((host.v4, 8081))?;
        half.write_all(&[7; 200_000])?;
        half.shutdown(Shutdown::Write)?;
        let mut length = String::new();
        half.read_to_string(&mut length)?;
        ensure!(length == "200000", "the server has read {length} bytes");
        counted.join().map_err(|_| anyhow::anyhow!("the counting server panicked"))??;
        let load = traffic::Load::start(&outsider, to, 16, 20_000, 200_000);
        eventually(Duration::from_secs(10), "time for load", || {
            ensure!(netd.netd("status")?.code == 0);
            traffic::exchange(&outsider, to, 99, 3 << 20, 3 << 20)
        })?;
        ensure!(load.finish()? > 16, "sixteen at a time");
        idle.write_all(&[0; 24]).context("the idle connection still stands")
    });
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let web = netd.create("web", "-p 8080:7000")?;
        let server = web.listen((Ipv4Addr::UNSPECIFIED, 7000))?;
        let to = SocketAddr::from((host.v4, 8080));
        let reset = |stream: &mut TcpStream, side: &str| {
            let mut bytes = Vec::new();
            let end = stream.read_to_end(&mut bytes);
            ensure!(
                end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
                "{side}: {end:?}"
            );
            Ok(())
        };
        // To close with bytes unread resets a connection.
        let mut client = outsider.connect(to)?;
        let (mut inner, _) = server.accept()?;
        client.write_all(b"never read")?;
        inner.peek(&mut [0])?;
        drop(inner);
        reset(&mut client, "the client")?;
        let mut client = outsider.connect(to)?;
        client.write_all(b"x")?;
        (inner, _) = server.accept()?;
        inner.set_read_timeout(Some(Duration::from_secs(5)))?;
        inner.read_exact(&mut [0])?;
        inner.write_all(b"never read")?;
        client.peek(&mut [0])?;
        drop(client);
        reset(&mut inner, "the server")
    });
}

#[test]
fn a_port_is_free_again_at_once_after_its_sandbox_went() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        for round in 0..5 {
            let web = netd.create("web", "-p 8080:7000")?;
            traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
            let to = (host.v4, 8080).into();
            traffic::exchange(&outsider, to, round, 1000, 1000)?;
            let _open = outsider.connect(to)?;
            netd.netd("sandbox rm web")?;
        }
        Ok(())
    });
}

#[test]
fn udp_keeps_datagrams_whole_and_answers_from_the_address_asked() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        // A second address of the host: the reply must come from the one that was asked.
        host.sh("ip addr add 192.0.2.201/24 dev eth0")?;
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        let echo = netd.create("echo", "--network app -p 5300:7000/udp")?;
        traffic::echo(echo.udp((Ipv6Addr::UNSPECIFIED, 7000))?); // both families
        let socket = outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?;
        let second = "192.0.2.201:5300".parse()?;
        for to in [SocketAddr::from((host.v4, 5300)), second] {
            for length in [0, 1, 512, 1472, 9000, 65_507] {
                traffic::ping(&socket, to, 1, length).with_context(|| format!("{length} bytes to {to}"))?;
            }
        }
        let six = outsider.udp((Ipv6Addr::UNSPECIFIED, 0))?;
        traffic::ping(&six, (host.v6, 5300).into(), 2, 1000)?;
        let local = host.udp((Ipv4Addr::LOCALHOST, 0))?;
        traffic::ping(&local, (Ipv4Addr::LOCALHOST, 5300).into(), 3, 1000)?;
        let neighbour = netd.create("neighbour", "--network app")?;
        traffic::ping(&neighbour.udp((Ipv4Addr::UNSPECIFIED, 0))?, (host.v4, 5300).into(), 4, 100)?;
        // Many clients at a time, none mixed up with another.
        let clients: Vec<_> =
            (0..64).map(|_| outsider.udp((Ipv4Addr::UNSPECIFIED, 0))).collect::<Result<_>>()?;
        for round in 0..20 {
            for (number, client) in clients.iter().enumerate() {
                traffic::ping(client, (host.v4, 5300).into(), round * 64 + number as u64, 700)?;
            }
        }
        Ok(())
    });
}

#[test]
fn udp_works_again_when_the_backend_does() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let echo = netd.create("echo", "-p 5300:7000/udp")?;
        let socket = outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?;
        let to = (host.v4, 5300).into();
        for _ in 0..2 {
            socket.send_to(b"nobody is there", to)?;
        }
        traffic::echo(echo.udp((Ipv4Addr::UNSPECIFIED, 7000))?);
        eventually(Duration::from_secs(6), "the same client is answered", || {
            traffic::ping(&socket, to, 1, 100)
        })
    });
}

#[test]
fn a_udp_server_of_one_family_answers_clients_of_both() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create dual --ipv6")?;
        let echo = netd.create("echo", "--network dual -p 5300:7000/udp")?;
        traffic::echo(echo.udp((Ipv4Addr::UNSPECIFIED, 7000))?);
        let six = outsider.udp((Ipv6Addr::UNSPECIFIED, 0))?;
        eventually(Duration::from_secs(6), "a client that comes by IPv6 is answered", || {
            traffic::ping(&six, (host.v6, 5300).into(), 1, 100)
        })?;
        let later = outsider.udp((Ipv6Addr::UNSPECIFIED, 0))?;
        traffic::ping(&later, (host.v6, 5300).into(), 2, 100).context("and the next at once")?;
        traffic::ping(&outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?, (host.v4, 5300).into(), 3, 100)
    });
}

#[test]
fn a_port_on_loopback_is_the_hosts_alone() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let web = netd.create("web", "-p 127.0.0.2:8080:7000 -p 127.0.0.2:8080:7000/udp")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        let to = "127.0.0.2:8080".parse()?;
        traffic::exchange(&host, to, 1, 1000, 1000)?;
        outsider.sh(&format!("ip route add 127.0.0.2/32 via {}", host.v4)).ok();
        ensure!(outsider.connect((host.v4, 8080)).is_err(), "nobody else reaches it");
        ensure!(netd.netd("port web 7000/tcp")?.stdout.contains("127.0.0.2:8080"), "port");
        Ok(())
    });
}

#[test]
fn a_thousand_ports_cost_no_process_and_no_thread() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let threads = |netd: &Daemon| -> Result<usize> {
            let count =
                |pid: u32| Ok::<_, anyhow::Error>(std::fs::read_dir(format!("/proc/{pid}/task"))?.count());
            Ok(count(netd.pid()?)? + count(netd.dataplane()?)?)
        };
        let before = threads(&netd)?;
        let range = netd.create("range", "-p 20000-20999:30000-30999/udp")?;
        traffic::echo(range.udp((Ipv4Addr::UNSPECIFIED, 30999))?);
        traffic::ping(&outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?, (host.v4, 20999).into(), 1, 100)?;
        ensure!(threads(&netd)? <= before, "{before} threads before, {} after", threads(&netd)?);
        Ok(())
    });
}

/// Connects (or is refused) and sees the end of the connection within a second.
fn refused_at_once(from: &Place, to: SocketAddr) -> Result<()> {
    let asked = Instant::now();
    if let Ok(mut stream) = from.connect(to) {
        let end = stream.read(&mut [0]);
        ensure!(end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "{to}: {end:?}");
    }
    ensure!(asked.elapsed() < Duration::from_secs(1), "{to} was refused after {:?}", asked.elapsed());
    Ok(())
}

/// The first host port that leads to `port` (`80/tcp`) of a sandbox.
fn host_port(netd: &Daemon, sandbox: &str, port: &str) -> Result<u16> {
    let ports = netd.inspect("sandbox", sandbox)?["NetworkSettings"]["Ports"][port].clone();
    let first = ports[0]["HostPort"].as_str().with_context(|| format!("{port} in {ports}"))?;
    Ok(first.parse()?)
}

#[test]
fn the_hello_world_serves() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let web = netd.place.start("netd sandbox run web -p 8080:80 -- python3 -u -m http.server 80")?;
        fetch(&outsider, &host)?;
        web.signal(nix::sys::signal::Signal::SIGINT)?;
        web.wait(Duration::from_secs(5))?;
        eventually(Duration::from_secs(2), "the sandbox goes with its program", || {
            let left = netd.netd("sandbox ls -q")?;
            ensure!(left.text().is_empty(), "{left:?}");
            Ok(())
        })
    });
}

fn fetch(from: &Place, host: &Host) -> Result<()> {
    let url = format!("http://{}:8080/", IpAddr::from(host.v4));
    eventually(Duration::from_secs(10), "the web server answers", || {
        let page = from.run(&format!("curl -sS --max-time 2 {url}"))?.success()?;
        ensure!(page.stdout.contains("Directory listing"), "{page:?}");
        Ok(())
    })
}
