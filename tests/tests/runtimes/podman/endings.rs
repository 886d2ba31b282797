//! Containers whose keepers die, and what is left of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::runtimes::{Podman, Site, conflist};
use netd_tests::snapshot::{ProcessInfo, processes};
use netd_tests::{eventually, scenario};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::SETTINGS;

/// How many there were.
fn kill_all(program: &str) -> Result<usize> {
    let found = running(program)?;
    for process in &found {
        end(process.pid)?;
    }
    Ok(found.len())
}

/// One may end with the other.
fn end(pid: u32) -> Result<()> {
    match kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("kill process {pid}")),
    }
}

fn running(program: &str) -> Result<Vec<ProcessInfo>> {
    let named =
        |process: &ProcessInfo| process.arguments.first().is_some_and(|first| first.ends_with(program));
    Ok(processes()?.into_iter().filter(named).collect())
}

#[test]
fn a_container_without_its_monitor_goes_with_rm() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({}))?;
        podman.sh("run -d --name web --network shop -p 8080:80 busybox sleep 1000")?;
        ensure!(kill_all("conmon")? > 0, "a container has a monitor");
        podman.sh("rm -f -t 0 web")?;
        podman.left_nothing()?;
        ensure!(site.host.connect((site.host.v4, 8080)).is_err(), "the port is closed");

        podman.sh("run -d --name web --network shop -p 8080:80 busybox sleep 1000")?;
        podman.sh("run -d --name two --network shop busybox sleep 1000")?;
        ensure!(kill_all("conmon")? > 0, "a container has a monitor");
        podman.sh("system reset -f")?;
        podman.left_nothing()
    });
}

/// For podman a monitor (conmon) keeps a socket on each published port, and podman notes the monitor after it has started
/// it. Killed in between, it knows of none: `rm` leaves the monitor waiting for a start that never comes, the socket with
/// it, and podman cannot publish the port again before somebody ends that monitor. So this does, as a user would have to.
/// No process of netd's is ever among the holders.
fn reservation_ends(podman: &Podman<'_>) -> Result<()> {
    eventually(Duration::from_secs(5), "what podman left on the port ends", || {
        let holders = podman.place.look("ss -Hltnp 'sport = :8080'")?;
        for holder in holders.split("(\"").skip(1) {
            let name = holder.split('"').next().unwrap_or_default();
            ensure!(["podman", "conmon", "runc"].iter().any(|theirs| name.starts_with(theirs)), "{holders}");
            let pid = holder.split("pid=").nth(1).and_then(|rest| rest.split(',').next()).context("a pid")?;
            end(pid.parse()?)?;
        }
        ensure!(holders.is_empty(), "{holders}");
        Ok(())
    })
}

/// podman notes a container's namespace after its networks are there. Killed in between, it has forgotten both: the
/// namespace stays, and no plugin can tell it from one whose program is about to start.
#[test]
fn podman_killed_at_any_moment_of_a_start_leaves_at_most_a_sandbox_that_netd_can_remove() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("shop", "shop", &json!({}))?;
        let (mut after, mut started) = (Duration::from_millis(50), false);
        while !started {
            ensure!(after < Duration::from_secs(10), "a container never starts");
            let run = podman.place.run(&format!(
                "timeout -s KILL {:.3} podman run -d --name cut --network shop -p 8080:80 busybox sleep 1000",
                after.as_secs_f64()
            ))?;
            started = run.code == 0;
            after = after.mul_f64(1.1);
            // The plugin goes on without its caller.
            eventually(Duration::from_secs(5), "the plugin ends", || {
                ensure!(running("netd-cni")?.is_empty(), "it runs");
                Ok(())
            })?;
            // It may take podman a second try to take its own mounts off.
            eventually(Duration::from_secs(10), "podman removes it", || {
                podman.sh("rm -f -i -t 0 cut").map(drop)
            })?;
            reservation_ends(&podman)?;
            let forgotten = site.netd.netd("sandbox ls -q")?;
            let Some(sandbox) = forgotten.text().lines().next() else { continue };
            // The next one that wants the port is told who has it.
            let late = podman.run("run --rm --network shop -p 8080:80 busybox true")?.refused(126, "8080")?;
            let owner = site.netd.inspect("sandbox", sandbox)?;
            ensure!(owner["Name"].as_str().is_some_and(|name| late.stderr.contains(name)), "{late:?}");
            site.netd.netd(&format!("sandbox rm -f {sandbox}"))?;
            podman.sh("run --rm --network shop -p 8080:80 busybox true")?;
        }
        site.left_nothing()?;
        for program in ["conmon", "runc"] {
            kill_all(program)?;
        }
        Ok(())
    });
}
