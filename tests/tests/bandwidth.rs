//! Rates: shaped on the host's side, seen by `sandbox inspect`, put back at start, gone with the endpoint.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::cni::{Container, address, config, error, with};
use netd_tests::{Daemon, Place, scenario, traffic};
use serde_json::{Value, json};

/// 8 Mbit/s, which is 1 MB/s, and 200 kB at once.
const RATE: u64 = 8_000_000;
const BURST: u64 = 1_600_000;
const SENT: u64 = 1_700_000;

fn limited(config: &Value, limits: &Value) -> Value {
    with(config, "runtimeConfig", json!({ "bandwidth": limits }))
}

/// How long it takes to send that much each way.
fn took(from: &Place, to: std::net::Ipv4Addr, up: u64, down: u64) -> Result<Duration> {
    let began = Instant::now();
    traffic::exchange(from, (to, 7000).into(), 3, up, down)?;
    Ok(began.elapsed())
}

fn devices(netd: &Daemon) -> Result<String> {
    Ok(netd.place.sh("ip -br link show type ifb")?.stdout)
}

#[test]
fn each_way_is_as_slow_as_asked_and_the_neighbour_is_not() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let app = config(&netd, "1.0.0", "app");
        let [free, slow_in, slow_out] = ["free", "in", "out"].map(|id| Container::new(&netd, id));
        let (free, slow_in, slow_out) = (free?, slow_in?, slow_out?);
        free.add("eth0", &limited(&app, &json!({ "ingressRate": 0, "ingressBurst": 4_294_967_295_u32 })))?;
        // containerd's keys, and its burst.
        let result = slow_in.add(
            "eth0",
            &limited(
                &app,
                &json!({ "IngressRate": RATE, "IngressBurst": BURST, "EgressRate": 0, "EgressBurst": 0 }),
            ),
        )?;
        let slow_in_at = address(&result)?;
        let result =
            slow_out.add("eth0", &limited(&app, &json!({ "egressRate": RATE, "egressBurst": BURST })))?;
        let slow_out_at = address(&result)?;
        let qdiscs = netd.place.sh("tc qdisc show")?.stdout;
        ensure!(
            qdiscs.matches("tbf").count() == 2 && qdiscs.contains("rate 8Mbit burst 200000b"),
            "{qdiscs}"
        );
        for one in [&slow_in, &slow_out] {
            traffic::serve(one.inside().listen((std::net::Ipv4Addr::UNSPECIFIED, 7000))?);
        }
        let second = Duration::from_secs(1);
        let client = free.inside();
        ensure!(took(&client, slow_in_at, SENT, 0)? > second, "what is sent to it is slowed");
        ensure!(took(&client, slow_in_at, 0, SENT)? < second, "what it sends is not");
        ensure!(took(&client, slow_out_at, 0, SENT)? > second, "what it sends is slowed");
        ensure!(took(&client, slow_out_at, SENT, 0)? < second, "what is sent to it is not");

        let seen = netd.netd("sandbox ls --format json")?.json()?;
        let limits: Vec<&Value> = seen
            .as_array()
            .context("a list")?
            .iter()
            .map(|one| &one["NetworkSettings"]["Networks"]["app"]["Bandwidth"])
            .filter(|limits| !limits.is_null())
            .collect();
        ensure!(limits.len() == 2 && limits.iter().any(|one| one["EgressRate"] == RATE), "{limits:?}");

        // Somebody takes it all away while the daemon does not look.
        netd.kill()?;
        let device = devices(&netd)?.split_whitespace().next().context("one device")?.to_owned();
        netd.place.sh(&format!("ip link del {device}"))?;
        netd.place.sh(&format!("tc qdisc del dev {} ingress", device.trim_end_matches('i')))?;
        netd.start()?;
        ensure!(took(&client, slow_out_at, 0, SENT)? > second, "it is put back at start");
        slow_out.del("eth0", "", &app)?;
        netd_tests::eventually(Duration::from_secs(2), "its device goes", || {
            ensure!(devices(&netd)?.is_empty(), "{}", devices(&netd)?);
            Ok(())
        })?;
        slow_in.del("eth0", "", &app)?;
        free.del("eth0", "", &app)?;
        [&free, &slow_in, &slow_out].iter().try_for_each(|one| one.unmount())
    });
}

#[test]
fn rates_that_cannot_be_kept_are_refused_and_change_nothing() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let web = Container::new(&netd, "web")?;
        let app = config(&netd, "1.0.0", "app");
        for (limits, named) in [
            (json!({ "ingressRate": RATE }), "a rate needs a burst"),
            (json!({ "egressRate": RATE, "egressBurst": 1000 }), "no packet fits"),
            (json!({ "egressRate": RATE, "egressBurst": 34_359_738_368_u64 }), "4 GiB"),
        ] {
            let told = error(&web.call("ADD", "eth0", &limited(&app, &limits))?)?;
            ensure!(told["code"] == 7 && told.to_string().contains(named), "{told}");
        }
        let big = with(&with(&app, "name", "big"), "mtu", 9000);
        let told = error(&web.call(
            "ADD",
            "eth0",
            &limited(&big, &json!({ "egressRate": 1, "egressBurst": 20_000 })),
        )?)?;
        ensure!(told["code"] == 7 && told.to_string().contains("at least 72112"), "{told}");
        ensure!(
            netd.netd("sandbox ls -q")?.text().is_empty() && devices(&netd)?.is_empty(),
            "nothing is there"
        );
        web.has_only_loopback()?;
        web.unmount()
    });
}
