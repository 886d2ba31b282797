//! The two processes: what each may do, how they are told to be ready, and that many requests at once all count.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use netd_tests::{Daemon, scenario};

#[test]
fn the_data_plane_has_no_privileges_and_holds_no_files() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.create("web", "--network app -p 8080:80 -p 53:53/udp")?;
        let pid = netd.dataplane()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<Vec<&str>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            Ok(line.with_context(|| format!("{name} in {status}"))?.split_whitespace().collect())
        };
        ensure!(field("Uid:")?.iter().all(|uid| *uid != "0"), "it runs as root: {status}");
        ensure!(field("Gid:")?.iter().all(|gid| *gid != "0"), "in root's group: {status}");
        ensure!(field("Groups:")?.is_empty(), "with more groups: {status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let held = u64::from_str_radix(field(set)?.first().context("a number")?, 16)?;
            ensure!(held & !CAP_NET_RAW == 0, "{set} {held:x}");
        }
        ensure!(field("NoNewPrivs:")? == ["1"] && field("Seccomp:")? == ["2"], "{status}");
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let to = fs::read_link(entry?.path())?.display().to_string();
            let harmless =
                ["socket:", "pipe:", "anon_inode:", "/dev/null"].iter().any(|kind| to.starts_with(kind));
            ensure!(harmless || to.ends_with("netd.log"), "an open file: {to}");
        }
        Ok(())
    });
}

#[test]
fn the_service_manager_is_told_when_it_is_ready() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let told = UnixDatagram::bind("/run/lab/notify")?;
        told.set_read_timeout(Some(Duration::from_secs(10)))?;
        let place = host.place.with_env("NOTIFY_SOCKET", "/run/lab/notify");
        let daemon =
            place.start("netd run --state-dir /run/lab/state --run-dir /run/lab/run --config /dev/null")?;
        let mut buffer = [0; 256];
        let length = told.recv(&mut buffer).context("wait for READY=1")?;
        ensure!(String::from_utf8_lossy(&buffer[..length]).contains("READY=1"), "{:?}", &buffer[..length]);
        host.sh("netd --socket /run/lab/run/netd.sock status")?;
        host.sh("netd --socket /run/lab/run/netd.sock down --purge")?;
        daemon.wait(Duration::from_secs(5))?;
        Ok(())
    });
}

#[test]
fn fifty_sandboxes_at_once_all_come_and_go() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --subnet 10.90.0.0/24")?;
        at_once(&netd, |number| format!("sandbox create s{number} --network app --alias all -p 80"))?;
        let all = netd.netd("sandbox ls --format json")?.json()?;
        let mut addresses = Vec::new();
        for number in 0..50 {
            addresses.push(netd.address::<std::net::Ipv4Addr>(&format!("s{number}"), "app")?);
        }
        addresses.sort();
        addresses.dedup();
        ensure!(addresses.len() == 50, "an address twice: {all}");
        netd.inside("s49").sh(&format!("ping -c1 -W2 {}", addresses[0]))?;
        at_once(&netd, |number| format!("sandbox rm s{number}"))?;
        ensure!(netd.netd("sandbox ls -q")?.text().is_empty(), "all gone");
        netd.netd("network rm app").map(drop)
    });
}

#[test]
fn one_name_is_given_once_however_many_ask() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let asked = std::thread::scope(|scope| {
            let one = || scope.spawn(|| netd.try_netd("sandbox create same -p 8080:80"));
            let threads: Vec<_> = (0..8).map(|_| one()).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
                .collect::<Result<Vec<_>>>()
        })?;
        ensure!(asked.iter().filter(|answer| answer.code == 0).count() == 1, "{asked:#?}");
        ensure!(asked.iter().all(|answer| answer.code == 0 || answer.stderr.contains("same")), "{asked:#?}");
        Ok(())
    });
}

/// Fifty requests from eight clients.
fn at_once(netd: &Daemon, line: impl Fn(u32) -> String + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let client = |first: u32| {
            let (netd, line) = (&netd, &line);
            scope.spawn(move || {
                (first..50).step_by(8).try_for_each(|number| netd.netd(&line(number)).map(drop))
            })
        };
        let clients: Vec<_> = (0..8).map(client).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

const CAP_NET_RAW: u64 = 1 << 13;
