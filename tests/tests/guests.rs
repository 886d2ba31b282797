//! Namespaces that somebody else made, and takes away without a word: the sandbox goes with its ports, names and
//! addresses, and never while anything lives in it.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::cni::{Container, address, config, publishing, sandboxes, sandboxes_become, with};
use netd_tests::eventually::throughout;
use netd_tests::query::Resolver;
use netd_tests::{Daemon, Process, eventually, scenario, traffic};
use nix::sys::signal::Signal;

/// Long enough for every event to have come, and no round.
const A_WHILE: Duration = Duration::from_millis(500);

fn end(process: &Process) -> Result<()> {
    process.signal(Signal::SIGKILL)?;
    process.wait(Duration::from_secs(5)).map(drop)
}

fn stays(netd: &Daemon) -> Result<()> {
    throughout(A_WHILE, "the sandbox is left alone", || {
        ensure!(sandboxes(netd)? == 1, "it is gone");
        Ok(())
    })
}

#[test]
fn a_container_that_ends_without_del_gives_everything_back() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let app = with(&config(&netd, "1.0.0", "app"), "subnet", "10.60.0.0/30");
        let watcher = netd.create("watcher", "--network bridge")?;
        let (web, process) = Container::of_process(&netd, "web")?;
        let result = web.add("eth0", &publishing(&app, 8080, 80))?;
        ensure!(netd.try_netd("network connect app watcher")?.code != 0, "the subnet holds one");
        traffic::serve(web.inside().listen((Ipv4Addr::UNSPECIFIED, 80))?);
        traffic::exchange(&host, (host.v4, 8080).into(), 1, 100, 100).context("the port is open")?;
        ensure!(netd.netd("sandbox ls")?.stdout.contains("cni-web"));
        end(&process)?;
        sandboxes_become(&netd, 1)?;
        ensure!(host.connect((host.v4, 8080)).is_err(), "the port is closed");
        eventually(Duration::from_secs(2), "its device goes", || {
            let links = host.sh("ip -br link")?.stdout;
            ensure!(links.matches(" nv").count() <= 1 && links.matches("\nnv").count() <= 1, "{links}");
            Ok(())
        })?;
        netd.netd("network connect app watcher").context("the address is free")?;
        ensure!(Resolver::new(&watcher)?.addresses("web").is_err(), "the name is gone");
        ensure!(netd.address::<Ipv4Addr>("watcher", "app")? == address(&result)?, "it is the same one");
        ensure!(netd.log().contains("its namespace is gone"), "and the log says why");
        Ok(())
    });
}

#[test]
fn a_namespace_that_is_inhabited_or_mounted_stays_whatever_its_path_says() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let app = config(&netd, "1.0.0", "app");
        // The first process goes, a second one is still in there.
        let (web, first) = Container::of_process(&netd, "web")?;
        web.add("eth0", &app)?;
        let second = web.inside().start("sleep 1000")?;
        let inside = web.inside().namespace_id()?;
        end(&first)?;
        stays(&netd)?;
        let mut still = web;
        still.netns = format!("/proc/{}/ns/net", second.pid);
        ensure!(still.inside().namespace_id()? == inside && still.links()?.contains("eth0"));
        // A mount by somebody takes over from the last process.
        let pin = "/run/lab/pin";
        std::fs::write(pin, "")?;
        netd.place.sh(&format!("mount --bind /proc/{}/ns/net {pin}", second.pid))?;
        end(&second)?;
        stays(&netd)?;
        netd.place.sh(&format!("umount {pin}"))?;
        sandboxes_become(&netd, 0)?;

        // A named one, whose name goes while a process is in it.
        let named = Container::new(&netd, "named")?;
        named.add("eth0", &app)?;
        let inhabitant = named.inside().start("sleep 1000")?;
        named.unmount()?;
        stays(&netd)?;
        end(&inhabitant)?;
        sandboxes_become(&netd, 0)?;
        // And one that nobody is in.
        let empty = Container::new(&netd, "empty")?;
        empty.add("eth0", &app)?;
        stays(&netd)?;
        empty.unmount()?;
        sandboxes_become(&netd, 0)
    });
}

#[test]
fn those_that_went_while_the_daemon_was_away_are_gone_at_its_start() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let app = config(&netd, "1.0.0", "app");
        let (gone, ended) = (Container::new(&netd, "gone")?, Container::of_process(&netd, "ended")?);
        let (kept, living) = (Container::new(&netd, "kept")?, Container::of_process(&netd, "living")?);
        for one in [&gone, &ended.0, &kept, &living.0] {
            one.add("eth0", &app)?;
        }
        netd.kill()?;
        gone.unmount()?;
        end(&ended.1)?;
        netd.start()?;
        ensure!(sandboxes(&netd)? == 2, "ready means that they are gone");
        let listed = netd.netd("sandbox ls")?.stdout;
        ensure!(listed.contains("cni-kept") && listed.contains("cni-living"), "{listed}");
        ensure!(netd.dataplane().is_ok(), "the data plane, whose sockets held them, is the same");

        // After a reboot inodes begin anew: a path may lead to a stranger that looks the same.
        netd.terminate()?;
        let boot = "/proc/sys/kernel/random/boot_id";
        std::fs::write("/run/lab/boot", "another-boot\n")?;
        host.sh(&format!("mount --bind /run/lab/boot {boot}"))?;
        netd.start()?;
        ensure!(sandboxes(&netd)? == 0, "nobody outlives the machine");
        kept.has_only_loopback()?;
        host.sh(&format!("umount {boot}"))?;
        kept.unmount()
    });
}

#[test]
fn who_is_in_the_way_and_dead_is_removed_at_once() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let fixed = publishing(&config(&netd, "1.0.0", "app"), 8080, 80);
        for round in 0..5 {
            let (web, process) = Container::of_process(&netd, "web")?;
            web.add("eth0", &fixed).with_context(|| format!("the same id and port, life {round}"))?;
            end(&process)?;
        }
        let (other, process) = Container::of_process(&netd, "other")?;
        other.add("eth0", &fixed)?;
        // The same by netd's own command, and with what shares the namespace.
        let id = netd.netd("sandbox ls -q")?.text().to_owned();
        netd.netd(&format!("sandbox create friend --network container:{id}"))?;
        end(&process)?;
        sandboxes_become(&netd, 0).context("a guest goes with those it shares with")?;
        netd.create("mine", "--network app -p 8080:80").map(drop)
    });
}
