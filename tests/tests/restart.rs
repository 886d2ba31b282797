//! Both processes killed and started again, under load; and what a start repairs, removes and leaves alone.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::eventually::throughout;
use netd_tests::query::{Loop, Resolver};
use netd_tests::traffic::{self, Download, Load};
use netd_tests::{Daemon, Host, Place, eventually, scenario};

#[test]
fn killing_the_control_plane_under_load_harms_no_connection_and_no_query() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let (netd, client) = small_town(&host)?;
        let (tcp, udp): (SocketAddr, SocketAddr) = ((host.v4, 8080).into(), (host.v4, 5300).into());
        let queries = Loop::start(&client, "web")?;
        let download = Download::start(&outsider, tcp, 64 << 20, Duration::from_secs(4))?;
        let load = Load::start(&outsider, tcp, 4, 10_000, 50_000);
        let datagrams = outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?;
        let echoes = |span| {
            let mut seed = 0;
            throughout(span, "datagrams come back", || {
                seed += 1;
                traffic::ping(&datagrams, udp, seed, 600)
            })
        };

        echoes(Duration::from_millis(500))?;
        let worker = netd.dataplane()?;
        netd.kill()?;
        echoes(Duration::from_secs(1))?;
        netd.start()?;
        ensure!(netd.dataplane()? == worker, "the same data plane goes on");
        echoes(Duration::from_millis(500))?;
        download.finish()?;
        let (connections, answers) = (load.finish()?, queries.finish()?);
        ensure!(connections > 50 && answers.answered > 100, "{connections} connections, {answers:?}");
        // What the new control plane manages is the same: live changes work.
        netd.netd("publish web 8081:7000")?;
        traffic::exchange(&outsider, (host.v4, 8081).into(), 1, 1000, 1000)
    });
}

#[test]
fn an_upgrade_under_load_fails_no_connection_and_no_query() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let (netd, client) = small_town(&host)?;
        let tcp = SocketAddr::from((host.v4, 8080));
        let newer = Path::new("/run/lab/netd-newer");
        netd_tests::other_build(newer)?;
        let queries = Loop::start(&client, "web")?;
        let download = Download::start(&outsider, tcp, 64 << 20, Duration::from_secs(3))?;
        let load = Load::start(&outsider, tcp, 4, 10_000, 50_000);
        let old = netd.dataplane()?;
        netd.kill()?;
        netd.launch_as(&newer.display().to_string())?;
        netd.ready()?;
        eventually(Duration::from_secs(5), "a data plane of the new build serves", || {
            let status = netd.netd("status --format json")?.json()?;
            ensure!(
                status["data_plane"]["pid"] != old && status["data_plane"]["state"] == "running",
                "{status}"
            );
            Ok(())
        })?;
        traffic::exchange(&outsider, tcp, 1, 1000, 1000)?;
        // The old one goes on with the connections it has, and with nothing else.
        download.finish()?;
        let (connections, answers) = (load.finish()?, queries.finish()?);
        ensure!(connections > 50 && answers.answered > 100, "{connections} connections, {answers:?}");
        eventually(Duration::from_secs(5), "the old data plane has left", || {
            ensure!(!Path::new(&format!("/proc/{old}")).exists(), "{old} is still there");
            Ok(())
        })?;
        netd.netd("publish web 8081:7000")?;
        traffic::exchange(&outsider, (host.v4, 8081).into(), 1, 1000, 1000)
    });
}

#[test]
fn a_killed_data_plane_is_back_within_a_second_and_refuses_nobody_meanwhile() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let (netd, client) = small_town(&host)?;
        let to = SocketAddr::from((host.v4, 8080));
        for _ in 0..3 {
            let killed = netd.dataplane()?;
            netd.kill_dataplane()?;
            let at = Instant::now();
            traffic::exchange(&outsider, to, 1, 10_000, 10_000).context("what arrives in between waits")?;
            let back = at.elapsed();
            Resolver::new(&client)?.addresses("web")?;
            traffic::exchange(&host, (Ipv4Addr::LOCALHOST, 8080).into(), 2, 10, 10)?;
            ensure!(back < Duration::from_secs(1), "back after {back:?}");
            ensure!(netd.dataplane()? != killed, "another process");
        }
        let status = netd.netd("status --format json")?.json()?;
        ensure!(status["data_plane"]["restarts"] == 3, "{status}");
        Ok(())
    });
}

#[test]
fn both_killed_at_once_come_back_to_the_same() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let (netd, client) = small_town(&host)?;
        let before = everything(&netd)?;
        netd.kill()?;
        netd.kill_dataplane()?;
        netd.start()?;
        ensure!(everything(&netd)? == before, "{before:#?} {:#?}", everything(&netd)?);
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 1000)?;
        ensure!(Resolver::new(&client)?.addresses("web")?.len() == 1, "names");
        Ok(())
    });
}

#[test]
fn ids_addresses_and_ports_survive_every_kind_of_restart() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (netd, _) = small_town(&host)?;
        netd.create("random", "--network town -p 80 --mac 02:00:00:00:00:01 --label a=b --alias x")?;
        let before = everything(&netd)?;
        netd.terminate()?;
        netd.start()?;
        ensure!(everything(&netd)? == before, "after SIGTERM");
        netd.kill()?;
        netd.start()?;
        ensure!(everything(&netd)? == before, "after SIGKILL");
        // `down` takes ports and names off and stops both; what was made is there again at the next start.
        netd.netd("down")?;
        eventually(Duration::from_secs(5), "down stops both", || {
            ensure!(!netd.runs() && netd.dataplane().is_err(), "still running");
            Ok(())
        })?;
        ensure!(host.connect((host.v4, 8080)).is_err(), "no port is left open");
        netd.start()?;
        ensure!(everything(&netd)? == before, "after down");
        traffic::exchange(&host, (host.v4, 8080).into(), 1, 10, 10)
    });
}

#[test]
fn a_start_repairs_what_somebody_has_deleted() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let (netd, client) = small_town(&host)?;
        // Without the index of the peer, which is new.
        let addresses = |client: &Place| -> Result<String> {
            let line = client.sh("ip -br addr show eth0")?.stdout;
            Ok(line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
        };
        let before = addresses(&client)?;
        netd.kill()?;
        let links = host.sh("ip -br link")?.stdout;
        let ours = links.lines().filter_map(|line| line.split([' ', '@']).next());
        let ours: Vec<_> = ours.filter(|name| name.starts_with("nv") || name.starts_with("nd-")).collect();
        ensure!(ours.len() >= 3, "a bridge and a link for each sandbox: {links}");
        for link in ours {
            host.sh(&format!("ip link del {link}"))?;
        }
        host.sh("nft delete table inet netd")?;
        netd.start()?;
        ensure!(addresses(&client)? == before, "{before}, not {}", addresses(&client)?);
        let web: Ipv4Addr = netd.address("web", "town")?;
        client.sh(&format!("ping -c1 -W2 {web}"))?;
        client.sh("ping -c1 -W2 198.51.100.1")?;
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 1000)
    });
}

#[test]
fn a_start_removes_what_is_ours_and_unknown_and_nothing_else() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        for line in [
            "ip link add foreign type bridge",
            "ip link add nvidia0 type bridge",
            "ip netns add theirs",
            "nft add table inet other",
            "nft add chain inet other keep",
            "ip route add 203.0.113.0/24 dev eth0",
        ] {
            host.sh(line)?;
        }
        // The comparison at the end of the scenario begins here: all of the above has to be there then, too.
        let netd = host.daemon()?;
        netd.netd("network create kept")?;
        netd.terminate()?;
        let old = saved(&netd.state_dir())?;
        netd.start()?;
        netd.netd("network create lost")?;
        netd.create("lost", "--network lost -p 8080:80")?;
        netd.kill()?;
        netd.kill_dataplane()?;
        restore(&netd.state_dir(), &old)?;
        netd.start()?;
        let links = host.sh("ip -br link")?.stdout;
        ensure!(
            !links.contains("nv0") && links.matches("nd-").count() == 1,
            "only the known network's bridge: {links}"
        );
        ensure!(!netd.netns_dir().join("lost").exists(), "the lost sandbox's namespace is gone");
        ensure!(host.connect((host.v4, 8080)).is_err(), "and its port");
        netd.create("lost", "--network kept -p 8080:80").map(drop)
    });
}

#[test]
fn a_flushed_ruleset_is_put_back() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let (netd, client) = small_town(&host)?;
        client.sh("ping -c1 -W2 198.51.100.1")?;
        let before = host.sh("nft -s list table inet netd")?.stdout;
        for wipe in ["nft flush ruleset", "nft delete table inet netd", "nft flush table inet netd"] {
            host.sh(wipe)?;
            eventually(Duration::from_secs(1), "the table is back", || {
                let now = host.look("nft -s list table inet netd")?;
                ensure!(now == before, "{now}");
                Ok(())
            })
            .context(wipe)?;
            client.sh("ping -c1 -W2 198.51.100.1")?;
        }
        let metrics = netd.http("GET", "/metrics", "")?.body;
        let repairs = metrics.lines().find(|line| line.contains("repairs") && !line.starts_with('#'));
        ensure!(repairs.is_some_and(|line| !line.ends_with(" 0")), "{repairs:?}");
        Ok(())
    });
}

#[test]
fn sigterm_in_the_middle_of_requests_ends_in_time() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let _hanging = netd_tests::http::connect(&netd.socket())?;
        let _events = netd.place.start("netd events")?;
        let at = Instant::now();
        ensure!(netd.terminate()? == 0, "a graceful end");
        ensure!(at.elapsed() < Duration::from_secs(3), "SIGTERM took {:?}", at.elapsed());
        ensure!(netd.dataplane().is_err(), "the data plane that it started ends with it");
        Ok(())
    });
}

/// A network `town` with `web`, which serves TCP on 8080 and UDP on 5300 of the host, and a `client`.
fn small_town(host: &Host) -> Result<(Daemon, Place)> {
    let netd = host.daemon()?;
    netd.netd("network create town --ipv6")?;
    let web = netd.create("web", "--network town --alias site -p 8080:7000 -p 5300:7000/udp")?;
    traffic::serve(web.listen((Ipv6Addr::UNSPECIFIED, 7000))?); // both families
    traffic::echo(web.udp((Ipv6Addr::UNSPECIFIED, 7000))?);
    let client = netd.create("client", "--network town")?;
    Ok((netd, client))
}

/// All that `inspect` and `port` say.
fn everything(netd: &Daemon) -> Result<Vec<serde_json::Value>> {
    let mut all = Vec::new();
    for noun in ["network", "sandbox"] {
        let names = netd.netd(&format!("{noun} ls -q"))?.stdout;
        for id in names.split_whitespace() {
            all.push(netd.inspect(noun, id)?);
        }
    }
    ensure!(!all.is_empty(), "there is something");
    Ok(all)
}

/// The files of a folder, with their contents.
fn saved(dir: &Path) -> Result<Vec<(std::path::PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            files.push((path.clone(), std::fs::read(&path)?));
        }
    }
    Ok(files)
}

fn restore(dir: &Path, files: &[(std::path::PathBuf, Vec<u8>)]) -> Result<()> {
    std::fs::remove_dir_all(dir)?;
    std::fs::create_dir_all(dir)?;
    files.iter().try_for_each(|(path, bytes)| Ok(std::fs::write(path, bytes)?))
}
