//! Backends that are unwell, dead or drain, as clients and users see them; and what either process's death changes about
//! it: nothing.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::query::Resolver;
use netd_tests::{Backend, Daemon, Place, eventually, scenario};

const PATIENCE: Duration = Duration::from_secs(10);

/// The name of the endpoint that answers there.
fn page(from: &Place, to: SocketAddr) -> Result<String> {
    let mut stream = from.connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split("\r\n\r\n").nth(1).context("a body")?;
    Ok(body.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Who answers when somebody asks a few times, none of which may fail.
fn answering(from: &Place, to: SocketAddr) -> Result<BTreeSet<String>> {
    (0..12).map(|_| page(from, to)).collect()
}

fn only(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

fn vip(netd: &Daemon, service: &str, port: u16) -> Result<SocketAddr> {
    let shown = netd.inspect("service", service)?;
    let vip: Ipv4Addr = shown["VIP"].as_str().context("a VIP")?.parse()?;
    Ok((vip, port).into())
}

fn is(netd: &Daemon, service: &str, endpoint: &str, state: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{endpoint} is {state}"), || {
        let shown = netd.inspect("service", service)?;
        let endpoints = shown["Endpoints"].as_array().context("endpoints")?;
        let found = endpoints.iter().find(|one| one["Sandbox"] == endpoint).context("the endpoint")?;
        ensure!(found["State"] == state, "{found}");
        Ok(())
    })
}

#[test]
fn an_unwell_endpoint_is_left_out_and_taken_back_whichever_process_dies() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let check = "--health http://:80/health --health-interval 100ms --health-rise 2 --health-fall 2";
        netd.netd(&format!("service create web --network app --port 80 {check}"))?;
        let client = netd.create("client", "--network app")?;
        let one = Backend::start(&netd, "web1", "--service web")?;
        let two = Backend::start(&netd, "web2", "--service web")?;
        for backend in [&one, &two] {
            is(&netd, "web", &backend.name, "ready")?;
        }
        let to = vip(&netd, "web", 80)?;
        ensure!(answering(&client, to)?.len() == 2);

        one.switch("/fail")?;
        is(&netd, "web", "web1", "failing")?;
        let named = |client: &Place| -> Result<BTreeSet<IpAddr>> {
            Ok(Resolver::new(client)?.addresses("tasks.web")?.into_iter().collect())
        };
        let second: IpAddr = netd.address("web2", "app")?;
        eventually(PATIENCE, "its name leads to the other alone", || {
            let found = named(&client)?;
            ensure!(found == BTreeSet::from([second]), "{found:?}");
            Ok(())
        })?;
        ensure!(answering(&client, to)? == only("web2"));

        netd.kill()?;
        ensure!(answering(&client, to)? == only("web2"), "without a control plane");
        netd.start()?;
        ensure!(answering(&client, to)? == only("web2"), "with a new one");
        netd.kill_dataplane()?;
        ensure!(
            answering(&client, to)? == only("web2"),
            "with a new data plane, from the first connection on"
        );
        one.switch("/mend")?;
        is(&netd, "web", "web1", "ready")?;
        ensure!(answering(&client, to)?.len() == 2);
        Ok(())
    });
}

#[test]
fn a_drain_ends_in_time_and_the_last_one_serves_on() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("service create web --network app --port 80 --port 7000 --drain 1s")?;
        let client = netd.create("client", "--network app")?;
        let _one = Backend::start(&netd, "web1", "--service web")?;
        let mut held = client.connect(vip(&netd, "web", 7000)?)?;
        held.set_read_timeout(Some(PATIENCE))?;
        let _two = Backend::start(&netd, "web2", "--service web")?;
        let to = vip(&netd, "web", 80)?;
        ensure!(answering(&client, to)?.len() == 2);

        netd.netd("service drain web web1")?;
        ensure!(answering(&client, to)? == only("web2"));
        let mut buffer = [0; 256];
        let end = loop {
            match held.read(&mut buffer) {
                Ok(1..) => {}
                Ok(0) => break ErrorKind::UnexpectedEof,
                Err(error) => break error.kind(),
            }
        };
        ensure!(end == ErrorKind::ConnectionReset, "a connection that outlives the drain ended by {end:?}");
        netd.netd("service drain web web2")?;
        ensure!(answering(&client, to)?.len() == 2, "when all drain, they serve on");
        Ok(())
    });
}

#[test]
fn a_dead_program_costs_no_connection() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("service create web --network app --port 80")?;
        let client = netd.create("client", "--network app")?;
        let backends = ["web1", "web2", "web3"].map(|name| Backend::start(&netd, name, "--service web"));
        let [one, _two, _three] = backends;
        let to = vip(&netd, "web", 80)?;
        ensure!(answering(&client, to)?.len() == 3);
        one?.kill()?;
        for _ in 0..10 {
            ensure!(answering(&client, to)? == BTreeSet::from(["web2".into(), "web3".into()]));
        }
        Ok(())
    });
}
