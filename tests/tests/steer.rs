//! Ports that a container runtime keeps sockets on, as podman does after the attach and nerdctl before it: they work all
//! the same, by sk_lookup and by tproxy, and a program that serves is not passed by.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::eventually::throughout;
use netd_tests::traffic::{self, Download, Load};
use netd_tests::{Daemon, Host, Lab, Place, Process, Setup, eventually, scenario};

const WAYS: [&str; 2] = ["sk_lookup", "tproxy"];

fn by(way: &str) -> Setup {
    Setup { config: format!("[publish]\nsteer = \"{way}\"\n"), ..Setup::default() }
}

/// Takes ports, listens where there is something to listen, and then becomes `sleep` or another program, which has the
/// sockets and never looks at them.
const RESERVE: &str = r#"
import os, socket, sys
program, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for port in range(first, first + count):
    for family, any in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            s = socket.socket(family, kind)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((any, port))
            if kind == socket.SOCK_STREAM:
                s.listen(4096)
            os.set_inheritable(s.detach(), True)
print("reserved", flush=True)
os.execv(program, [program, "infinity"])
"#;

fn reserve(host: &Host, program: &str, first: u16, count: u16) -> Result<Process> {
    std::fs::write("/run/lab/reserve.py", RESERVE)?;
    let process = host.start(&format!("python3 /run/lab/reserve.py {program} {first} {count}"))?;
    process.says("reserved")?;
    eventually(Duration::from_secs(5), "the reservation has become another program", || {
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.pid))?;
        ensure!(comm.trim() == Path::new(program).file_name().context("a name")?, "{comm}");
        Ok(())
    })?;
    Ok(process)
}

fn serve(sandbox: &Place) -> Result<()> {
    traffic::serve(sandbox.listen((Ipv6Addr::UNSPECIFIED, 7000))?);
    traffic::echo(sandbox.udp((Ipv6Addr::UNSPECIFIED, 7000))?);
    Ok(())
}

/// A client that takes answers only from where it asked, as a connected socket does.
fn asks(from: &Place, to: SocketAddr, length: usize) -> Result<()> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket: UdpSocket = from.udp((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let question: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let mut answer = vec![0; length + 1];
    // A datagram may get lost while a neighbour's address is being found.
    eventually(Duration::from_secs(10), &format!("{to} answers {length} bytes to {}", from.name), || {
        socket.send(&question)?;
        let got = socket.recv(&mut answer)?;
        ensure!(answer[..got] == question, "{got} bytes came back");
        Ok(())
    })
}

fn reachable(host: &Host, places: &[&Place], port: u16) -> Result<()> {
    let outside: [SocketAddr; 2] = [(host.v4, port).into(), (host.v6, port).into()];
    let loopback: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let from_everywhere = places.iter().flat_map(|from| outside.map(|to| (*from, to)));
    for (from, to) in from_everywhere.chain(loopback.map(|to| (&host.place, to))) {
        traffic::exchange(from, to, 1, 300_000, 300_000).with_context(|| format!("{} to {to}", from.name))?;
        for length in [0, 600, 20_000] {
            asks(from, to, length)?;
        }
    }
    Ok(())
}

fn works_beside_reservations(lab: &Lab, way: &str) -> Result<()> {
    let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
    let netd = host.daemon_with(by(way))?;
    if way == "tproxy" {
        host.filter_bridges(false)?;
    }
    netd.netd("network create app --ipv6")?;
    netd.netd("network create other --ipv6")?;
    let neighbour = netd.create("neighbour", "--network app")?;
    let stranger = netd.create("stranger", "--network other")?;
    // nerdctl takes the port before, podman after.
    let _before = reserve(&host, "/usr/bin/sleep", 8080, 1)?;
    let flags =
        "--network app --publish-by steer -p 8080:7000 -p 8080:7000/udp -p 8081:7000 -p 8081:7000/udp";
    let web = netd.create("web", flags)?;
    serve(&web)?;
    let _after = reserve(&host, "/usr/bin/sleep", 8081, 1)?;
    let places = [&host.place, &outsider.place, &neighbour, &stranger, &web];
    for port in [8080, 8081] {
        reachable(&host, &places, port)?;
    }
    let status = netd.netd("status --format json")?.stdout;
    ensure!(status.contains(&format!("by {way}")), "{status}");

    // Given up, it is the reservation's again; taken once more, it works.
    netd.netd("unpublish web 8080:7000")?;
    let mut dead = outsider.connect((host.v4, 8080))?;
    dead.set_read_timeout(Some(Duration::from_millis(200)))?;
    let silence = dead.read(&mut [0]);
    ensure!(silence.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{silence:?}");
    netd.netd("publish web 8080:7000 --publish-by steer")?;
    reachable(&host, &places, 8080)
}

#[test]
fn a_steered_port_works_from_everywhere_beside_reservations() {
    scenario(|lab| works_beside_reservations(lab, "sk_lookup"));
}

#[test]
fn a_steered_port_works_from_everywhere_without_bpf() {
    scenario(|lab| {
        works_beside_reservations(lab, "tproxy")?;
        // With frames of bridges led through the host's rules, tproxy cannot serve sandboxes: doctor says so.
        let host = lab.host("filtered")?;
        let netd = host.daemon_with(by("tproxy"))?;
        for (value, warns) in [(true, true), (false, false)] {
            host.filter_bridges(value)?;
            let checks = netd.netd("doctor --format json")?.json()?;
            let checks = checks["checks"].as_array().context("checks")?;
            let steering = checks.iter().find(|check| check["name"] == "steering").context("steering")?;
            let said = steering.to_string();
            ensure!(said.contains("bridge-nf-call-iptables") == warns, "{value}: {said}");
        }
        Ok(())
    });
}

#[test]
fn a_program_that_serves_is_a_clash_that_names_it() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let server = host.start("python3 -u -m http.server 8080")?;
        server.says("Serving")?;
        let line = "sandbox create web --publish-by steer -p 8080:80";
        netd.try_netd(line)?.refused(1, &format!("python3 (pid {})", server.pid))?;
        netd.try_netd("sandbox create web -p 8080:80")?
            .refused(1, &format!("python3 (pid {})", server.pid))?;
        ensure!(!netd.netd("sandbox ls")?.stdout.contains("web"), "nothing is left of it");
        traffic_of_its_own(&host, 8080)?;
        // Another protocol's port is free, and so is the next of a range.
        netd.create("first", "--publish-by steer -p 8080-8089:80")?;
        ensure!(netd.netd("port first")?.stdout.contains("0.0.0.0:8081"), "the first free one");
        netd.netd("publish first 8080:53/udp --publish-by steer")?;
        // Between sandboxes a port has one owner, whichever way it is published.
        netd.try_netd("sandbox create second -p 8081:80")?.refused(1, "first")?;
        netd.create("bound", "-p 8090:80")?;
        netd.try_netd("sandbox create second --publish-by steer -p 8090:80")?.refused(1, "bound")?;
        netd.try_netd("sandbox create second --publish-by force -p 8091:80")?.refused(2, "bind or steer")?;
        netd.try_netd(&format!("sandbox create second {}", "--publish-by steer -p 8080:80"))?
            .refused(1, "python3")?;
        server.signal(nix::sys::signal::Signal::SIGKILL)?;
        server.wait(Duration::from_secs(5))?;
        netd.create("second", "--publish-by steer -p 8080:80").map(drop)
    });
}

/// The program on the port still answers.
fn traffic_of_its_own(host: &Host, port: u16) -> Result<()> {
    let page = host.run(&format!("curl -sS --max-time 2 http://127.0.0.1:{port}/"))?.success()?;
    ensure!(page.stdout.contains("Directory listing"), "{page:?}");
    Ok(())
}

#[test]
fn a_program_that_took_the_port_while_netd_was_away_keeps_it() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let web = netd.create("web", "--publish-by steer -p 8080:7000 -p 8081:7000")?;
        serve(&web)?;
        let reserved = reserve(&host, "/usr/bin/sleep", 8081, 1)?;
        netd.terminate()?;
        let server = host.start("python3 -u -m http.server 8080")?;
        server.says("Serving")?;
        netd.start()?;
        traffic_of_its_own(&host, 8080)?;
        traffic::exchange(&host, (Ipv4Addr::LOCALHOST, 8081).into(), 1, 10, 10)?;
        let told = netd.try_netd("doctor")?.stdout;
        ensure!(told.contains("8080 of sandbox web"), "doctor tells of it: {told}");
        // Once steered, a port stays so through a restart of the data plane, whoever holds it.
        drop(reserved);
        netd.kill_dataplane()?;
        traffic::exchange(&host, (Ipv4Addr::LOCALHOST, 8081).into(), 1, 10, 10)
    });
}

#[test]
fn who_counts_as_a_reservation_is_a_setting() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let config = "[publish]\nreservation-holders = [\"keeper\"]\n".to_owned();
        let netd = host.daemon_with(Setup { config, ..Setup::default() })?;
        std::fs::copy("/usr/bin/sleep", "/run/lab/keeper")?;
        let _sleep = reserve(&host, "/usr/bin/sleep", 8080, 1)?;
        let _keeper = reserve(&host, "/run/lab/keeper", 8081, 1)?;
        netd.try_netd("sandbox create web --publish-by steer -p 8080:7000")?.refused(1, "sleep (pid")?;
        let web = netd.create("web", "--publish-by steer -p 8081:7000")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::exchange(&host, (host.v4, 8081).into(), 1, 1000, 1000)
    });
}

#[test]
fn the_hosts_firewall_sees_the_published_port() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        for way in WAYS {
            let host = lab.host(way)?;
            let netd = host.daemon_with(by(way))?;
            let web = netd.create("web", "--publish-by steer -p 8080:7000 -p 8080:7000/udp -p 8081:7000")?;
            serve(&web)?;
            let to = |port| SocketAddr::from((host.v4, port));
            traffic::exchange(&outsider, to(8080), 1, 10, 10)?;
            asks(&outsider, to(8080), 10)?;
            host.sh("nft add table inet guard")?;
            host.sh("nft 'add chain inet guard input { type filter hook input priority 0; }'")?;
            host.sh("nft add rule inet guard input meta l4proto { tcp, udp } th dport 8080 reject")?;
            ensure!(outsider.connect(to(8080)).is_err(), "{way}: the rule is about this port");
            let socket = outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(to(8080))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.send(b"question")?;
            ensure!(socket.recv(&mut [0; 16]).is_err(), "{way}: and so for datagrams");
            traffic::exchange(&outsider, to(8081), 1, 10, 10)?;
            host.sh("nft delete table inet guard")?;
            traffic::exchange(&outsider, to(8080), 1, 10, 10)?;
            // A flush takes our rules too; they come back.
            host.sh("nft flush ruleset")?;
            eventually(Duration::from_secs(2), "steering is put back", || {
                traffic::exchange(&outsider, to(8080), 1, 10, 10)?;
                let rules = host.look("nft list ruleset")?;
                ensure!(rules.contains("from the port that was asked"), "{rules}");
                Ok(())
            })?;
            asks(&outsider, to(8080), 10)?;
        }
        Ok(())
    });
}

fn threads_and_descriptors(netd: &Daemon) -> Result<(usize, usize)> {
    let count = |directory: String| Ok::<_, anyhow::Error>(std::fs::read_dir(directory)?.count());
    let (run, plane) = (netd.pid()?, netd.dataplane()?);
    let threads = count(format!("/proc/{run}/task"))? + count(format!("/proc/{plane}/task"))?;
    Ok((threads, count(format!("/proc/{run}/fd"))? + count(format!("/proc/{plane}/fd"))?))
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn a_range_of_a_thousand_ports_beside_reservations_is_one_thing() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        for way in WAYS {
            let netd = host.daemon_with(by(way))?;
            let _first = netd.create("first", "--publish-by steer -p 9999:7000")?;
            let reserved = reserve(&host, "/usr/bin/sleep", 20_000, 1000)?;
            let before = threads_and_descriptors(&netd)?;
            let memory = resident_kib(netd.dataplane()?)?;
            let range = netd.create("range", "--publish-by steer -p 20000-20999:30000-30999")?;
            let after = threads_and_descriptors(&netd)?;
            ensure!(after.0 <= before.0 && after.1 <= before.1 + 8, "{way}: {before:?}, {after:?}");
            let more = resident_kib(netd.dataplane()?)?.saturating_sub(memory);
            ensure!(more < 20 << 10, "{way}: {more} KiB more");
            for port in [30_000, 30_500, 30_999] {
                traffic::serve(range.listen((Ipv4Addr::UNSPECIFIED, port))?);
                traffic::exchange(&outsider, (host.v4, port - 10_000).into(), 1, 1000, 1000)?;
            }
            netd.netd("sandbox rm range")?;
            reserved.signal(nix::sys::signal::Signal::SIGKILL)?;
            reserved.wait(Duration::from_secs(5))?;
            netd.netd("down --purge")?;
        }
        Ok(())
    });
}

#[test]
fn ten_thousand_steered_ports_fit() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let range = netd.create("range", "--publish-by steer -p 20000-29999:30000-39999")?;
        for port in [30_000, 39_999] {
            traffic::serve(range.listen((Ipv4Addr::UNSPECIFIED, port))?);
            traffic::exchange(&outsider, (host.v4, port - 10_000).into(), 1, 1000, 1000)?;
        }
        netd.kill_dataplane()?;
        eventually(Duration::from_secs(20), "all of them are served again", || {
            traffic::exchange(&outsider, (host.v4, 29_999).into(), 1, 1000, 1000)
        })
    });
}

/// Steered ports, reserved, with load on them. The one that is reserved shows at once when steering has a gap: what
/// comes to the reservation is never answered.
fn under_load(lab: &Lab, way: &str, deed: impl FnOnce(&Daemon) -> Result<()>) -> Result<()> {
    let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
    let netd = host.daemon_with(by(way))?;
    let _reserved = reserve(&host, "/usr/bin/sleep", 8080, 1)?;
    let web = netd.create("web", "--publish-by steer -p 8080:7000 -p 8080:7000/udp")?;
    serve(&web)?;
    let to = SocketAddr::from((host.v4, 8080));
    asks(&outsider, to, 600)?;
    let load = Load::start(&outsider, to, 4, 10_000, 50_000);
    deed(&netd)?;
    traffic::exchange(&outsider, to, 1, 1000, 1000)?;
    asks(&outsider, to, 600)?;
    let connections = load.finish()?;
    ensure!(connections > 50, "{connections} connections");
    netd.netd("publish web 8081:7000 --publish-by steer")?;
    traffic::exchange(&outsider, (host.v4, 8081).into(), 1, 1000, 1000)?;
    netd.netd("unpublish web 8081:7000")?;
    ensure!(outsider.connect((host.v4, 8081)).is_err(), "it is not steered any more");
    Ok(())
}

fn restart_of_the_control_plane(netd: &Daemon) -> Result<()> {
    let worker = netd.dataplane()?;
    netd.kill()?;
    // Long enough for the load to notice: nothing is there but the data plane.
    throughout(Duration::from_millis(700), "the data plane lives", || {
        ensure!(Path::new(&format!("/proc/{worker}")).exists(), "it has ended");
        Ok(())
    })?;
    netd.start()?;
    ensure!(netd.dataplane()? == worker, "the same data plane goes on");
    Ok(())
}

#[test]
fn killing_the_control_plane_leaves_steering_up() {
    scenario(|lab| under_load(lab, "sk_lookup", restart_of_the_control_plane));
}

#[test]
fn killing_the_control_plane_leaves_steering_up_without_bpf() {
    scenario(|lab| under_load(lab, "tproxy", restart_of_the_control_plane));
}

#[test]
fn an_upgrade_leaves_steering_up() {
    scenario(|lab| under_load(lab, "sk_lookup", upgrade));
}

fn upgrade(netd: &Daemon) -> Result<()> {
    let newer = Path::new("/run/lab/netd-newer");
    netd_tests::other_build(newer)?;
    let old = netd.dataplane()?;
    netd.kill()?;
    netd.launch_as(&newer.display().to_string())?;
    netd.ready()?;
    eventually(Duration::from_secs(5), "a data plane of the new build serves", || {
        let status = netd.netd("status --format json")?.json()?;
        let new = &status["data_plane"];
        ensure!(new["pid"] != old && new["state"] == "running", "{status}");
        Ok(())
    })
}

#[test]
fn a_killed_data_plane_refuses_no_client_of_a_steered_port() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        for way in WAYS {
            let host = lab.host(way)?;
            let netd = host.daemon_with(by(way))?;
            let _reserved = reserve(&host, "/usr/bin/sleep", 8080, 1)?;
            let web = netd.create("web", "--publish-by steer -p 8080:7000 -p 8080:7000/udp")?;
            serve(&web)?;
            let to = SocketAddr::from((host.v4, 8080));
            for _ in 0..3 {
                netd.kill_dataplane()?;
                // It waits in the backlog of the sockets that the control plane holds.
                traffic::exchange(&outsider, to, 1, 1000, 1000)?;
            }
            asks(&outsider, to, 600)?;
            // Both at once: nothing of ours is left, and what is steered comes back with the daemon.
            netd.kill()?;
            netd.kill_dataplane()?;
            netd.start()?;
            traffic::exchange(&outsider, to, 1, 1000, 1000)?;
            asks(&outsider, to, 600)?;
        }
        Ok(())
    });
}

#[test]
fn a_steered_port_of_an_internal_network_is_served_once_there_is_a_way_in() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create inside --internal")?;
        netd.netd("network create app")?;
        let web = netd.create("web", "--network inside --publish-by steer -p 8080:7000")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        let to = SocketAddr::from((host.v4, 8080));
        ensure!(outsider.connect(to).is_err(), "there is no way in");
        netd.netd("network connect app web")?;
        traffic::exchange(&outsider, to, 1, 1000, 1000)?;
        netd.netd("network disconnect app web")?;
        ensure!(outsider.connect(to).is_err(), "there is no way in any more");
        Ok(())
    });
}

#[test]
fn a_connection_through_a_steered_port_outlives_the_control_plane() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let web = netd.create("web", "--publish-by steer -p 127.0.0.1:8080:7000 -p 8081:7000")?;
        serve(&web)?;
        ensure!(outsider.connect((host.v4, 8080)).is_err(), "it is on loopback only");
        traffic::exchange(&host, (Ipv4Addr::LOCALHOST, 8080).into(), 1, 10, 10)?;
        let to = (host.v4, 8081).into();
        let download = Download::start(&outsider, to, 64 << 20, Duration::from_secs(3))?;
        netd.kill()?;
        netd.start()?;
        netd.netd("unpublish web 8081:7000")?;
        download.finish()?;
        ensure!(outsider.connect(to).is_err(), "it is published no more");
        Ok(())
    });
}
