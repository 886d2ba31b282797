//! The state directory: cut short, shared by mistake, and given back.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netd_tests::{Daemon, Setup, eventually, http, scenario};

#[test]
fn a_state_file_cut_anywhere_recovers_or_is_refused_with_a_remedy() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --subnet 10.70.0.0/24")?;
        netd.create("one", "--network app -p 8080:80")?;
        netd.terminate()?;
        let file = largest_file(&netd)?;
        let whole = std::fs::read(&file)?;
        let step = (whole.len() / 24).max(1);
        let (mut recovered, mut refused) = (0, 0);
        for cut in (0..whole.len()).step_by(step).chain([1, whole.len() - 1]) {
            std::fs::write(&file, &whole[..cut])?;
            netd.launch()?;
            let outcome =
                eventually(Duration::from_secs(10), "it is ready or has ended", || match netd.runs() {
                    false => Ok(false),
                    true => {
                        let answer = http::request(&netd.socket(), "GET", "/readyz", "")?;
                        ensure!(answer.status == 200, "{answer:?}");
                        Ok(true)
                    }
                })?;
            if outcome {
                recovered += 1;
                let left = netd.netd("sandbox ls")?.stdout;
                ensure!(
                    left.contains("one"),
                    "cut at {cut}: it came up, but has silently lost a sandbox: {left}"
                );
                netd.kill()?;
            } else {
                refused += 1;
                let said = netd.log();
                let last = said.lines().last().unwrap_or_default();
                let name = file.file_name().context("a file has a name")?.to_string_lossy();
                ensure!(said.contains(&*name), "cut at {cut}: which file? {last}");
                ensure!(last.contains("put it aside"), "cut at {cut}: no remedy in {last}");
            }
        }
        ensure!(recovered + refused > 20, "{recovered} recovered, {refused} refused");
        std::fs::write(&file, &whole)?;
        netd.start()?;
        ensure!(netd.netd("port one")?.stdout.contains("8080"), "the whole file is as good as before");
        Ok(())
    });
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    scenario(|lab| {
        let (host, other) = (lab.host("n1")?, lab.host("n2")?);
        let netd = host.daemon()?;
        netd.netd("network create app")?;
        for place in [&host.place, &other.place] {
            let refused = place.run(&netd.command_line())?;
            let refused = refused.refused(1, &netd.state_dir().display().to_string())?;
            ensure!(
                refused.stderr.contains(&netd.pid()?.to_string()) || refused.stderr.contains("another"),
                "{refused:?}"
            );
        }
        netd.netd("network ls").map(drop)
    });
}

#[test]
fn two_daemons_live_side_by_side() {
    scenario(|lab| {
        let (one, two) = (lab.host("n1")?, lab.host("n2")?);
        let (first, second) = (one.daemon()?, two.daemon()?);
        for netd in [&first, &second] {
            netd.netd("network create app --subnet 10.71.0.0/24")?;
            netd.create("web", "--network app -p 8080:7000")?;
        }
        first.netd("sandbox rm web")?;
        ensure!(second.netd("sandbox ls")?.stdout.contains("web"), "the other's stays");
        second.inside("web").sh("ping -c1 -W2 10.71.0.1").map(drop)
    });
}

#[test]
fn without_options_everything_is_where_people_look_for_it() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        // The lab's /run is its own; the state still goes elsewhere, for /var is the machine's.
        let daemon = host.start("netd run --state-dir /run/lab/default-state --config /dev/null")?;
        eventually(Duration::from_secs(5), "the default socket answers", || {
            ensure!(daemon.runs(), "{}", daemon.output());
            host.sh("netd status").map(drop)
        })?;
        host.sh("netd sandbox create web")?;
        let inside = host.sh("ip netns exec web ip -br link")?.stdout;
        ensure!(inside.contains("eth0"), "{inside}");
        let mode = host.sh("stat -c %a:%U:%G /run/netd/netd.sock")?.stdout;
        ensure!(mode.starts_with("660:root:"), "{mode}");
        host.sh("netd down --purge")?;
        daemon.wait(Duration::from_secs(5))?;
        let left = host.sh("ip netns list")?.stdout;
        ensure!(!left.contains("web"), "{left}");
        Ok(())
    });
}

#[test]
fn a_node_name_given_by_the_user_is_shown() {
    scenario(|lab| {
        let netd =
            lab.host("n1")?.daemon_with(Setup { arguments: "--name alpha".into(), ..Setup::default() })?;
        let status = netd.netd("status --format json")?.json()?;
        ensure!(status["node"] == "alpha", "{status}");
        Ok(())
    });
}

fn largest_file(netd: &Daemon) -> Result<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(netd.state_dir())? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    match files.into_iter().max() {
        Some((_, path)) => Ok(path),
        None => bail!("no file in {}", netd.state_dir().display()),
    }
}
