//! A thousand UDP ports published by one sandbox.

use std::time::Duration;

use anyhow::Result;
use netd_tests::Daemon;

use crate::figures::NETD;
use crate::load::api::Connection;
use crate::measure::Results;
use crate::scenario::Plan;
use crate::scenario::attach::rest::pause;
use crate::task::Usage;

/// Each round by fresh processes: memory that was used once hides what the next use costs.
pub(super) fn run(daemon: &Daemon, plan: &Plan, results: &mut Results) -> Result<()> {
    daemon.netd("network create lan")?;
    for round in 1..=plan.rounds {
        daemon.terminate()?;
        daemon.start()?;
        let pids = [daemon.pid()?, daemon.dataplane()?];
        pause(Duration::from_millis(500));
        let before = Usage::of(&pids)?;
        let mut api = Connection::open(&daemon.socket())?;
        let body = format!(r#"{{"Name":"range","Networks":[{{"Network":"lan"}}],"Publish":["{PORTS}"]}}"#);
        let took = api.call("POST", "/v1/sandboxes", &body)?;
        let after = Usage::of(&pids)?;
        let memory = after.megabytes() - before.megabytes();
        let tasks = after.tasks as f64 - before.tasks as f64;
        eprintln!(
            "  round {round}/{}  1,000 ports  {NETD}: {:.0} ms, {memory:.1} MB and {tasks} tasks more",
            plan.rounds,
            took.as_secs_f64() * 1e3
        );
        results.record("range-ready", NETD, round, took.as_secs_f64());
        results.record("range-memory", NETD, round, memory);
        results.record("range-tasks", NETD, round, tasks);
        api.call("DELETE", "/v1/sandboxes/range", "")?;
    }
    daemon.netd("network rm lan").map(drop)
}

const PORTS: &str = "20000-20999:20000-20999/udp";
