//! What a user sees of a service's endpoints, those outside among them: where each is, how it is, since when and why; and
//! that names lead to those that are well.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::backend::{ask, becomes, vip};
use netd_tests::query::Resolver;
use netd_tests::{Backend, Cluster, Daemon, Host, Place, Process, eventually, scenario};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
const CHECK: &str = "--health http://:80/health --health-interval 100ms --health-fall 1";

/// A backend outside: its process.
fn outside(host: &Host) -> Result<Process> {
    let process = host.start("lab_echo --name far --tcp 7000 --http 80")?;
    process.says("is ready")?;
    Ok(process)
}

/// What `service inspect` says of one endpoint, by its address.
fn endpoint(netd: &Daemon, service: &str, address: &str) -> Result<Value> {
    let shown = netd.inspect("service", service)?;
    let endpoints = shown["Endpoints"].as_array().context("endpoints")?;
    let found = endpoints.iter().find(|endpoint| endpoint["Address"] == address).cloned();
    found.with_context(|| format!("no endpoint {address} in {shown}"))
}

fn is(netd: &Daemon, service: &str, address: &str, wanted: &[(&str, &str)]) -> Result<()> {
    eventually(PATIENCE, &format!("{address} is {wanted:?}"), || {
        let shown = endpoint(netd, service, address)?;
        for (field, value) in wanted {
            ensure!(shown[*field].as_str().unwrap_or_default() == *value, "{shown}");
        }
        ensure!(shown["Since"].as_str().is_some_and(|since| since.contains('T')), "{shown}");
        Ok(())
    })
}

fn leads_to(from: &Place, name: &str, wanted: &[&str]) -> Result<()> {
    let wanted: BTreeSet<IpAddr> = wanted.iter().map(|ip| ip.parse()).collect::<Result<_, _>>()?;
    eventually(PATIENCE, &format!("{name} leads to {wanted:?}"), || {
        let found: BTreeSet<IpAddr> = Resolver::new(from)?.addresses(name)?.into_iter().collect();
        ensure!(found == wanted, "it leads to {found:?}");
        Ok(())
    })
}

#[test]
fn a_user_sees_how_every_endpoint_is_since_when_and_why() {
    scenario(|lab| {
        let (host, far) = (lab.host("n1")?, lab.host("far")?);
        let netd = host.daemon()?;
        let (there, it) = (format!("{}:80", far.v4), far.v4.to_string());
        let program = outside(&far)?;
        netd.netd("network create app")?;
        netd.netd(&format!(
            "service create web --network app --endpoint-mode dnsrr --backend {there} {CHECK}"
        ))?;
        let client = netd.create("client", "--network app")?;
        let web = Backend::start(&netd, "web1", "--service web")?;
        let own: Ipv4Addr = netd.address("web1", "app")?;
        let own = own.to_string();
        for address in [&there, &own] {
            is(&netd, "web", address, &[("State", "ready"), ("Health", "healthy"), ("Reason", "")])?;
        }
        leads_to(&client, "web", &[&it, &own])?;

        program.signal(Signal::SIGKILL)?;
        let refused =
            [("State", "failing"), ("Health", "unhealthy"), ("Reason", "the connection was refused")];
        is(&netd, "web", &there, &refused)?;
        leads_to(&client, "web", &[&own])?;
        let before = endpoint(&netd, "web", &there)?;
        netd.kill()?;
        netd.start()?;
        ensure!(endpoint(&netd, "web", &there)? == before, "what was found outlives the daemon");
        leads_to(&client, "web", &[&own])?;

        let program = outside(&far)?;
        is(&netd, "web", &there, &[("State", "ready"), ("Health", "healthy"), ("Reason", "")])?;
        leads_to(&client, "web", &[&it, &own])?;
        web.switch("/fail")?;
        is(&netd, "web", &own, &[("State", "failing"), ("Reason", "the answer was status 503")])?;
        leads_to(&client, "web", &[&it])?;
        web.switch("/mend")?;
        is(&netd, "web", &own, &[("State", "ready"), ("Reason", "")])?;
        netd.netd("service drain web web1")?;
        is(&netd, "web", &own, &[("State", "draining"), ("Reason", "it was asked to drain")])?;
        let table = netd.netd("service inspect --format table web")?.stdout;
        ensure!(table.contains("Reason: it was asked to drain"), "{table}");
        ensure!(netd.netd("service ls")?.stdout.contains("1/2"), "one of two is ready");
        drop(program);
        netd.netd(&format!("service update web --backend-rm {there}"))?;
        leads_to(&client, "web", &[&own])
    });
}

#[test]
fn a_user_sees_whom_a_node_passes_over() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("service create web --network app")?;
        let dead = Backend::start(&netd, "web1", "--service web")?;
        let _well = Backend::start(&netd, "web2", "--service web")?;
        let client = netd.create("client", "--network app")?;
        let to = SocketAddr::from((vip::<Ipv4Addr>(&netd, "web")?, 7000));
        dead.kill()?;
        eventually(PATIENCE, "the dead one is passed over", || {
            ensure!(ask(&client, to)?.by == "web2");
            let shown = netd_tests::backend::endpoint(&netd, "web", "web1")?;
            ensure!(shown["Ejected"] == true && shown["State"] == "ready", "{shown}");
            ensure!(netd_tests::backend::endpoint(&netd, "web", "web2")?["Ejected"] == false);
            Ok(())
        })
    });
}

#[test]
fn every_node_tells_how_endpoints_of_others_are_and_what_it_has_found_outside_itself() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let far = lab.host("far")?;
        let [one, two] = &cluster.nodes[..] else { unreachable!("two") };
        let there = format!("{}:80", far.v4);
        let _program = outside(&far)?;
        one.netd("network create app -d overlay")?;
        one.netd(&format!(
            "service create web --network app --endpoint-mode dnsrr --backend {there} {CHECK}"
        ))?;
        cluster
            .everywhere(PATIENCE, "the service is known", |node| node.inspect("service", "web").map(drop))?;
        let web = Backend::start(two, "web2", "--service web")?;
        let clients = [one.create("client1", "--network app")?, two.create("client2", "--network app")?];
        for node in [one, two] {
            becomes(node, "web", "web2", "ready")?;
            is(node, "web", &there, &[("State", "ready"), ("Health", "healthy"), ("Node", "")])?;
        }
        let own: Ipv4Addr = two.address("web2", "app")?;
        let (own, it) = (own.to_string(), far.v4.to_string());

        web.switch("/fail")?;
        let failing = [("State", "failing"), ("Node", "node2"), ("Reason", "the answer was status 503")];
        [one, two].iter().try_for_each(|node| is(node, "web", &own, &failing))?;
        clients.iter().try_for_each(|client| leads_to(client, "web", &[&it]))?;
        web.switch("/mend")?;
        [one, two]
            .iter()
            .try_for_each(|node| is(node, "web", &own, &[("State", "ready"), ("Reason", "")]))?;

        cluster.cuts.between(&one.host, &far)?;
        is(one, "web", &there, &[("State", "failing"), ("Reason", "there was no answer in time")])?;
        leads_to(&clients[0], "web", &[&own])?;
        is(two, "web", &there, &[("State", "ready")])?;
        leads_to(&clients[1], "web", &[&it, &own])
    });
}
