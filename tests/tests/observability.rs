//! What an operator sees: metrics, one access line per connection, levels changed at run time, readiness.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::query::Resolver;
use netd_tests::{Daemon, Setup, eventually, scenario, traffic};

#[test]
fn metrics_count_what_was_done() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let arguments = "--metrics-addr 127.0.0.1:9100".into();
        let netd = host.daemon_with(Setup { arguments, ..Setup::default() })?;
        netd.netd("network create app")?;
        let web = netd.create("web", "--network app -p 8080:7000 -p 5300:7000/udp")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::echo(web.udp((Ipv4Addr::UNSPECIFIED, 7000))?);
        let to = SocketAddr::from((host.v4, 8080));
        for seed in 0..5 {
            traffic::exchange(&outsider, to, seed, 10_000, 20_000)?;
        }
        traffic::ping(&outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?, (host.v4, 5300).into(), 1, 100)?;
        Resolver::new(&web)?.addresses("web")?;
        eventually(Duration::from_secs(5), "the counts are there", || {
            let text = netd.http("GET", "/metrics", "")?.body;
            for part in ["connections", "bytes", "dns_queries", "attach", "store_revision", "restarts"] {
                ensure!(
                    text.lines().any(|line| line.starts_with("netd_") && line.contains(part)),
                    "{part}: {text}"
                );
            }
            let opened = sum(&text, "connections_opened").or_else(|_| sum(&text, "connections_total"))?;
            ensure!(opened >= 5.0, "{opened} connections: {text}");
            Ok(())
        })?;
        let scraped = host.sh("curl -sS http://127.0.0.1:9100/metrics")?.stdout;
        ensure!(scraped.contains("netd_"), "{scraped}");
        Ok(())
    });
}

#[test]
fn each_connection_is_one_access_line() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon_with(Setup { arguments: "--log-format json".into(), ..Setup::default() })?;
        let web = netd.create("web", "-p 8080:7000")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 3000)?;
        eventually(Duration::from_secs(5), "one line", || {
            let log = netd.log();
            let lines: Vec<_> = log.lines().filter(|line| line.contains(r#""target":"access""#)).collect();
            ensure!(lines.len() == 1, "{lines:?}");
            let line: serde_json::Value = serde_json::from_str(lines[0]).context("JSON")?;
            let text = line.to_string();
            // Who, where to, how much: the head of 24 bytes goes up, too.
            ensure!(
                text.contains(&outsider.v4.to_string()) && text.contains("1024") && text.contains("3000"),
                "{text}"
            );
            Ok(())
        })
    });
}

#[test]
fn the_log_level_changes_without_a_restart() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let lines = |netd: &Daemon| netd.log().lines().count();
        let told = |netd: &Daemon| {
            let before = lines(netd);
            netd.netd("network create probe")?;
            netd.netd("network rm probe")?;
            anyhow::Ok(lines(netd) - before)
        };
        ensure!(told(&netd)? > 0, "what is made is told");
        let set = netd.http("PUT", "/v1/log", r#"{"filter":"error"}"#)?;
        ensure!(set.status == 200, "{set:?}");
        eventually(Duration::from_secs(3), "the daemon says less", || {
            ensure!(told(&netd)? == 0, "{}", netd.log());
            Ok(())
        })?;
        netd.http("PUT", "/v1/log", r#"{"filter":"debug"}"#)?;
        netd.netd("network create app")?;
        netd.create("web", "--network app")?;
        netd.try_netd("sandbox create web --network app")?.refused(1, "web")?;
        // What was asked for, how it ended, how long it took; and what the kernel was told.
        eventually(Duration::from_secs(3), "and the most at debug", || {
            let log = netd.log();
            let says = |parts: &[&str]| {
                log.lines().any(|line| line.contains("DEBUG") && parts.iter().all(|part| line.contains(part)))
            };
            ensure!(says(&["netd::server", "sandbox.create", "done", "took="]), "{log}");
            ensure!(says(&["netd::server", "sandbox.create", "refused", "web"]), "{log}");
            ensure!(says(&["netd::driver", "attach", "nv", "took="]), "{log}");
            Ok(())
        })?;
        netd.netd("sandbox rm web")?;
        netd.http("PUT", "/v1/log", r#"{"filter":"netd=notalevel=x"}"#)?.problem(
            400,
            "invalid",
            "notalevel",
        )?;
        let set = netd.http("GET", "/v1/log", "")?;
        ensure!(set.json()?["filter"] == "debug", "{set:?}");
        Ok(())
    });
}

#[test]
fn the_api_describes_itself_and_its_health() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let document = netd.http("GET", "/v1/openapi.json", "")?.json()?;
        ensure!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{document}");
        for path in ["/v1/networks", "/v1/sandboxes", "/v1/events", "/metrics"] {
            ensure!(document["paths"][path].is_object(), "{path}");
        }
        for path in ["/healthz", "/readyz"] {
            ensure!(netd.http("GET", path, "")?.status == 200, "{path}");
        }
        Ok(())
    });
}

#[test]
fn nothing_of_a_quiet_day_is_an_error_in_the_log() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create app --ipv6")?;
        let web = netd.create("web", "--network app -p 8080:7000")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 3000)?;
        netd.netd("sandbox rm web")?;
        netd.terminate()?;
        netd.start()?;
        let log = netd.log();
        let wrong: Vec<_> = log
            .lines()
            .filter(|line| line.contains("ERROR") || line.contains("WARN") || line.contains("panicked"))
            .collect();
        ensure!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    });
}

/// The sum of all series whose name contains `part`.
fn sum(text: &str, part: &str) -> Result<f64> {
    let of = |line: &str| {
        line.split_once([' ', '{']).is_some_and(|(name, _)| name.contains(part) && !name.starts_with('#'))
    };
    let values: Vec<f64> = text
        .lines()
        .filter(|line| of(line))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    ensure!(!values.is_empty(), "no series {part}");
    Ok(values.iter().sum())
}
