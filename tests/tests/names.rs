//! Names: what 127.0.0.11 answers in a sandbox, to whom, and how fast it says no.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use netd_tests::lab::resolve_by;
use netd_tests::query::{Resolver, addresses};
use netd_tests::{Process, eventually, scenario};

#[test]
fn every_name_of_a_sandbox_resolves_in_both_families_and_back() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.netd("network create four")?;
        let client = netd.create("client", "--network app")?;
        netd.netd("sandbox create Web --network app --alias Search --alias web.internal --hostname www --network four")?;
        let inspected = netd.inspect("sandbox", "Web")?;
        let id = inspected["Id"].as_str().context("an id")?;
        let (v4, v6): (Ipv4Addr, Ipv6Addr) = (netd.address("Web", "app")?, {
            let v6 = inspected["NetworkSettings"]["Networks"]["app"]["GlobalIPv6Address"]
                .as_str()
                .context("IPv6")?;
            v6.parse()?
        });
        let resolver = Resolver::new(&client)?;
        for name in [
            "web",
            "WEB.",
            "search",
            "web.internal",
            "www",
            &id[..12],
            "web.app",
            "search.app",
            "Search.App.",
        ] {
            ensure!(resolver.addresses(name)? == [IpAddr::from(v4)], "{name} is {v4}");
            let six = resolver.ask(name, RecordType::AAAA)?;
            ensure!(addresses(&six) == [IpAddr::from(v6)], "{name} is {v6}: {six:?}");
            ensure!(six.answers.iter().all(|record| record.ttl <= 5), "a short TTL: {six:?}");
        }
        let back = client.sh(&format!("dig @127.0.0.11 +short -x {v4}"))?.stdout;
        ensure!(back.trim().eq_ignore_ascii_case("web.app."), "{back}");
        let back = client.sh(&format!("dig @127.0.0.11 +short -x {v6}"))?.stdout;
        ensure!(back.trim().eq_ignore_ascii_case("web.app."), "{back}");
        netd.netd("exec client -- getent ahosts web").map(drop)
    });
}

#[test]
fn there_is_a_difference_between_no_such_name_and_no_such_record() {
    scenario(|lab| {
        let _upstream = upstream(lab)?;
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let client = netd.create("client", "--network app")?;
        netd.create("web", "--network app")?;
        let resolver = Resolver::new(&client)?;
        for kind in [RecordType::AAAA, RecordType::MX] {
            let nodata = resolver.ask("web", kind)?;
            ensure!(
                nodata.metadata.response_code == ResponseCode::NoError && nodata.answers.is_empty(),
                "{nodata:?}"
            );
        }
        let missing = resolver.ask("nobody.example.test", RecordType::A)?;
        ensure!(missing.metadata.response_code == ResponseCode::NXDomain, "{missing:?}");
        netd.netd("sandbox rm web")?;
        let gone = resolver.ask("web.app", RecordType::A)?;
        ensure!(gone.answers.is_empty() && gone.metadata.response_code != ResponseCode::NoError, "{gone:?}");
        Ok(())
    });
}

#[test]
fn the_question_comes_back_in_the_case_it_was_asked() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let client = netd.create("client", "--network app")?;
        let answer = Resolver::new(&client)?.ask("cLiEnT.ApP.", RecordType::A)?;
        let asked = answer.queries.first().context("the question is repeated")?;
        ensure!(asked.name().to_ascii() == "cLiEnT.ApP.", "{asked}");
        ensure!(answer.metadata.recursion_available && !answer.metadata.authoritative, "{answer:?}");
        Ok(())
    });
}

#[test]
fn each_of_the_addresses_behind_an_alias_comes_first_equally_often() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let client = netd.create("client", "--network app")?;
        for number in 0..3 {
            netd.create(&format!("search{number}"), "--network app --alias search")?;
        }
        let resolver = Resolver::new(&client)?;
        let mut first = HashMap::<IpAddr, u32>::new();
        for _ in 0..900 {
            let found = resolver.addresses("search")?;
            ensure!(found.len() == 3, "{found:?}");
            *first.entry(found[0]).or_default() += 1;
        }
        ensure!(first.len() == 3 && first.values().all(|count| (280..=320).contains(count)), "{first:?}");
        Ok(())
    });
}

#[test]
fn long_answers_are_cut_for_udp_and_whole_by_edns_and_tcp() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let client = netd.create("client", "--network app")?;
        for number in 0..40 {
            netd.create(&format!("member{number}"), "--network app --alias everybody")?;
        }
        let resolver = Resolver::new(&client)?;
        let short = resolver.ask("everybody", RecordType::A)?;
        ensure!(short.metadata.truncation && short.to_vec()?.len() <= 512, "{short:?}");
        let long = resolver.ask_edns("everybody", RecordType::A, 4096)?;
        ensure!(!long.metadata.truncation && long.answers.len() == 40 && long.edns.is_some(), "{long:?}");
        let tcp = client.sh("dig @127.0.0.11 +tcp +short everybody")?.stdout;
        ensure!(tcp.lines().count() == 40, "{tcp}");
        let retried = client.sh("dig @127.0.0.11 +noedns +short everybody")?.stdout;
        ensure!(retried.lines().filter(|line| line.parse::<IpAddr>().is_ok()).count() == 40, "{retried}");
        Ok(())
    });
}

#[test]
fn names_stay_inside_their_network() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create red")?;
        netd.netd("network create blue")?;
        let red = netd.create("r", "--network red --alias same")?;
        netd.create("b", "--network blue --alias same")?;
        let both = netd.create("both", "--network red --network blue")?;
        let (r, b): (IpAddr, IpAddr) = (netd.address("r", "red")?, netd.address("b", "blue")?);
        let resolver = Resolver::new(&red)?;
        ensure!(resolver.addresses("same")? == [r], "only its own network's");
        ensure!(resolver.ask("b", RecordType::A)?.answers.is_empty(), "b is on another network");
        ensure!(resolver.ask("b.blue", RecordType::A)?.answers.is_empty(), "b.blue too");
        let resolver = Resolver::new(&both)?;
        ensure!(
            resolver.addresses("same.red")? == [r] && resolver.addresses("same.blue")? == [b],
            "by network"
        );
        let dump = netd.netd("dns dump r")?.stdout;
        ensure!(
            dump.contains("same") && dump.contains(&r.to_string()) && !dump.contains(&b.to_string()),
            "{dump}"
        );
        Ok(())
    });
}

#[test]
fn a_link_gives_one_more_name_to_one_sandbox() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.create("db", "")?;
        netd.netd("sandbox create web --link db:store")?;
        let address: IpAddr = netd.address("db", "bridge")?;
        let seen = netd.netd("exec web -- getent hosts store")?.stdout;
        ensure!(seen.contains(&address.to_string()), "{seen}");
        netd.create("other", "")?;
        ensure!(netd.try_netd("exec other -- getent hosts store")?.code != 0, "the link is web's alone");
        netd.try_netd("sandbox create x --link nobody")?.refused(1, "nobody").map(drop)
    });
}

#[test]
fn a_sandbox_may_run_its_own_server_on_port_53() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let server = netd.create("server", "--network app")?;
        let client = netd.create("client", "--network app")?;
        let own = netd.exec(
            "server",
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --no-resolv --no-hosts --bind-interfaces --listen-address=0.0.0.0 --address=/own.test/203.0.113.7",
        )?;
        let address: IpAddr = netd.address("server", "app")?;
        eventually(Duration::from_secs(5), "the sandbox's own server answers", || {
            ensure!(own.runs(), "{}", own.output());
            let seen = client.run(&format!("dig @{address} +short +tries=1 +timeout=1 own.test"))?;
            ensure!(seen.text() == "203.0.113.7", "{seen:?}");
            Ok(())
        })?;
        client.sh(&format!("dig @{address} +tcp +short own.test"))?;
        ensure!(Resolver::new(&server)?.addresses("client")?.len() == 1, "netd's server still answers there");
        Ok(())
    });
}

#[test]
fn other_names_are_asked_where_the_host_asks() {
    scenario(|lab| {
        let upstream = upstream(lab)?;
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let client = netd.create("client", "--network app")?;
        let resolver = Resolver::new(&client)?;
        let answer: IpAddr = "203.0.113.10".parse()?;
        ensure!(resolver.addresses("known.example.test")? == [answer], "forwarded");
        let tcp = client.sh("dig @127.0.0.11 +tcp +short known.example.test")?;
        ensure!(tcp.text() == answer.to_string(), "{tcp:?}");

        // Silence upstream is SERVFAIL here, in time for a client that waits five seconds.
        upstream.signal(nix::sys::signal::Signal::SIGSTOP)?;
        let asked = Instant::now();
        let failed = resolver.ask("other.example.test", RecordType::A)?;
        ensure!(failed.metadata.response_code == ResponseCode::ServFail, "{failed:?}");
        ensure!(asked.elapsed() < Duration::from_millis(4500), "SERVFAIL after {:?}", asked.elapsed());
        let asked = Instant::now();
        ensure!(resolver.addresses("client")?.len() == 1, "local names do not wait for it");
        ensure!(asked.elapsed() < Duration::from_millis(500), "a local name took {:?}", asked.elapsed());
        drop(upstream);
        let refused = resolver.ask("third.example.test", RecordType::A)?;
        ensure!(refused.metadata.response_code == ResponseCode::ServFail, "{refused:?}");
        Ok(())
    });
}

#[test]
fn a_change_of_the_hosts_resolver_is_followed() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let client = netd.create("client", "--network app")?;
        let resolver = Resolver::new(&client)?;
        let before = resolver.ask("known.example.test", RecordType::A)?;
        ensure!(before.metadata.response_code == ResponseCode::ServFail, "{before:?}");
        let _upstream = upstream(lab)?;
        eventually(Duration::from_secs(5), "the new resolver is asked", || {
            ensure!(resolver.addresses("known.example.test")?.len() == 1);
            Ok(())
        })
    });
}

#[test]
fn names_outside_need_a_network_that_leads_out() {
    scenario(|lab| {
        let _upstream = upstream(lab)?;
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("network create inner --internal")?;
        let client = netd.create("client", "--network app")?;
        let resolver = Resolver::new(&client)?;
        let outside = || resolver.ask("known.example.test", RecordType::A);
        ensure!(addresses(&outside()?).len() == 1, "{:?}", outside()?);
        netd.netd("network connect inner client")?;
        ensure!(addresses(&outside()?).len() == 1, "{:?}", outside()?);
        netd.netd("network disconnect app client")?;
        ensure!(outside()?.metadata.response_code == ResponseCode::ServFail, "{:?}", outside()?);
        ensure!(resolver.addresses("client.inner")?.len() == 1, "its own names stay");
        netd.netd("network connect app client")?;
        ensure!(addresses(&outside()?).len() == 1, "{:?}", outside()?);
        Ok(())
    });
}

#[test]
fn a_server_inside_an_internal_network_can_be_asked() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create inner --internal")?;
        netd.create("server", "--network inner")?;
        let address: IpAddr = netd.address("server", "inner")?;
        let client = netd.create("client", &format!("--network inner --dns {address}"))?;
        let own = netd.exec(
            "server",
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --no-resolv --no-hosts --bind-interfaces --listen-address=0.0.0.0 --address=/own.test/203.0.113.7",
        )?;
        let resolver = Resolver::new(&client)?;
        eventually(Duration::from_secs(5), "it answers through 127.0.0.11", || {
            ensure!(own.runs(), "{}", own.output());
            let answer = resolver.ask("own.test", RecordType::A)?;
            ensure!(addresses(&answer) == ["203.0.113.7".parse::<IpAddr>()?], "{answer:?}");
            Ok(())
        })
    });
}

#[test]
fn its_own_server_as_upstream_is_no_loop() {
    scenario(|lab| {
        let _upstream = upstream(lab)?;
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let alone = netd.create("alone", "--network app --dns 127.0.0.11")?;
        let asked = Instant::now();
        let failed = Resolver::new(&alone)?.ask("known.example.test", RecordType::A)?;
        ensure!(failed.metadata.response_code == ResponseCode::ServFail, "{failed:?}");
        ensure!(asked.elapsed() < Duration::from_secs(1), "after {:?}", asked.elapsed());
        let both = netd.create("both", "--network app --dns 127.0.0.11 --dns 198.51.100.1")?;
        ensure!(Resolver::new(&both)?.addresses("known.example.test")?.len() == 1, "the real one is asked");
        Ok(())
    });
}

#[test]
fn dns_options_of_a_sandbox_take_the_place_of_the_hosts() {
    scenario(|lab| {
        let _upstream = upstream(lab)?;
        let netd = lab.host("n1")?.daemon()?;
        resolve_by("192.0.2.77")?; // nobody is there
        netd.netd("network create app")?;
        let client = netd.create(
            "client",
            "--network app --dns 198.51.100.1 --dns-search example.test --dns-option ndots:2 --add-host fixed:192.0.2.99",
        )?;
        ensure!(Resolver::new(&client)?.addresses("known.example.test")?.len() == 1, "--dns is asked");
        let conf = netd.netd("exec client -- cat /etc/resolv.conf")?.stdout;
        for line in ["nameserver 127.0.0.11", "search example.test", "ndots:2"] {
            ensure!(conf.contains(line), "{line}: {conf}");
        }
        ensure!(
            netd.netd("exec client -- getent hosts known")?.stdout.contains("203.0.113.10"),
            "the search list"
        );
        ensure!(netd.netd("exec client -- getent hosts fixed")?.stdout.contains("192.0.2.99"), "--add-host");
        Ok(())
    });
}

#[test]
fn on_the_default_bridge_the_hosts_servers_are_asked_directly() {
    scenario(|lab| {
        let _upstream = upstream(lab)?;
        let netd = lab.host("n1")?.daemon()?;
        netd.create("client", "")?;
        let conf = netd.netd("exec client -- cat /etc/resolv.conf")?.stdout;
        ensure!(conf.contains("198.51.100.1") && !conf.contains("127.0.0.11"), "{conf}");
        ensure!(
            netd.netd("exec client -- getent hosts known.example.test")?.stdout.contains("203.0.113.10"),
            "asked"
        );
        Ok(())
    });
}

#[test]
fn garbage_does_no_harm() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        let client = netd.create("client", "--network app")?;
        let resolver = Resolver::new(&client)?;
        let before = netd.dataplane()?;
        let mut bytes = Vec::new();
        for seed in 0..400u32 {
            bytes.push((seed.wrapping_mul(2_654_435_761) >> 24) as u8);
            resolver.send_bytes(&bytes)?;
        }
        resolver.send_bytes(b"")?;
        let fresh = Resolver::new(&client)?;
        ensure!(fresh.addresses("client")?.len() == 1, "still answered");
        for head in ["", "\\0", "\\377\\377short", "\\0\\2ab\\0\\0"] {
            client.run(&format!("sh -c 'printf \"{head}\" | nc -w1 127.0.0.11 53'"))?;
        }
        ensure!(fresh.addresses("client")?.len() == 1 && netd.dataplane()? == before, "the data plane lives");
        Ok(())
    });
}

/// A real DNS server on "the Internet", which every host's resolv.conf then names.
fn upstream(lab: &netd_tests::Lab) -> Result<Process> {
    resolve_by("198.51.100.1")?;
    let server = lab.router.start(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --no-resolv --no-hosts --listen-address=198.51.100.1 --bind-interfaces --local=/test/ --host-record=known.example.test,203.0.113.10",
    )?;
    eventually(Duration::from_secs(5), "the upstream answers", || {
        ensure!(server.runs(), "{}", server.output());
        lab.router.run("dig @198.51.100.1 +short +tries=1 +timeout=1 known.example.test")?.success().map(drop)
    })?;
    Ok(server)
}
