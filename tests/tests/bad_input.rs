//! Bad input: each a clear error with its stable code, and no change.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::{Daemon, eventually, http, scenario};

#[test]
fn bodies_that_are_not_what_the_api_wants_are_refused_by_name() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let before = picture(&netd)?;
        let long = format!(r#"{{"Name":"{}"}}"#, "n".repeat(65));
        let deep = "[".repeat(5000);
        for (body, says) in [
            ("", ""),
            ("{", ""),
            (r#"{"Name":"a"} trailing"#, "trailing"),
            (r#"["a"]"#, ""),
            (r#"{"Name":7}"#, "Name"),
            (r#"{"Name":"a","Internal":"yes"}"#, "Internal"),
            (r#"{"Name":"a","Subnt":"10.0.0.0/8"}"#, "Subnt"),
            (r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.1.0.0/16","Gatway":"10.1.0.1"}]}}"#, "Gatway"),
            (r#"{"Name":"a","IPAM":{"Config":[{"Subnet":5}]}}"#, "IPAM.Config[0].Subnet"),
            (r#"{"Name":"a/b"}"#, "Name"),
            (r#"{"Name":"a\u0000b"}"#, "Name"),
            (r#"{"Name":""}"#, "Name"),
            (r#"{"Name":"  "}"#, "Name"),
            (r#"{"Name":".."}"#, "Name"),
            (long.as_str(), "Name"),
            (deep.as_str(), ""),
            (r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.1.0.5/16"}]}}"#, "10.1.0.5/16"),
            (r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.1.0.0/33"}]}}"#, "10.1.0.0/33"),
            (r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.1.0.0/16","Gateway":"10.2.0.1"}]}}"#, "10.2.0.1"),
            (
                r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.1.0.0/16","IPRange":"10.2.0.0/24"}]}}"#,
                "10.2.0.0/24",
            ),
        ] {
            let answer = netd.http("POST", "/v1/networks", body)?;
            let shown: String = body.chars().take(100).collect();
            answer.problem(400, "invalid", says).with_context(|| shown)?;
        }
        ensure!(picture(&netd)? == before, "nothing has changed");
        Ok(())
    });
}

#[test]
fn sandboxes_with_wrong_names_ports_or_networks_are_refused() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let before = picture(&netd)?;
        let long = format!(r#"{{"Name":"{}"}}"#, "n".repeat(65));
        for (body, status, code, says) in [
            (r#"{"Name":"a/../../b"}"#, 400, "invalid", "Name"),
            (r#"{"Name":"a\u0000b"}"#, 400, "invalid", "Name"),
            (long.as_str(), 400, "invalid", "Name"),
            (r#"{"Name":"a","Networks":[{"Network":"bridge","Aliases":["a/b"]}]}"#, 400, "invalid", "a/b"),
            (r#"{"Name":"a","Publish":["80:0"]}"#, 400, "invalid", "Publish[0]"),
            (r#"{"Name":"a","Expose":["0"]}"#, 400, "invalid", "Expose[0]"),
            (r#"{"Name":"a b"}"#, 400, "invalid", "Name"),
            (r#"{"Name":"a","Publish":["0:80"]}"#, 400, "invalid", "Publish[0]"),
            (r#"{"Name":"a","Publish":["80:65536"]}"#, 400, "invalid", "65536"),
            (r#"{"Name":"a","Publish":["8010-8001:80"]}"#, 400, "invalid", "8010"),
            (r#"{"Name":"a","Publish":[8080]}"#, 400, "invalid", "Publish[0]"),
            (r#"{"Name":"a","NetworkMode":"bridged"}"#, 400, "invalid", "bridged"),
            (r#"{"Name":"a","NetworkMode":"container:nobody"}"#, 404, "not-found", "nobody"),
            (r#"{"Name":"a","Networks":[{"Network":"nowhere"}]}"#, 404, "not-found", "nowhere"),
            (r#"{"Name":"a","Networks":[{"Network":"bridge","MacAddress":"zz"}]}"#, 400, "invalid", "zz"),
            (
                r#"{"Name":"a","Networks":[{"Network":"bridge","MacAddress":"01:00:00:00:00:01"}]}"#,
                400,
                "invalid",
                "01:00",
            ),
            (r#"{"Name":"a","Netns":"relative/path"}"#, 400, "invalid", "relative"),
            (r#"{"Name":"a","Netns":"/run/netns/nowhere"}"#, 400, "invalid", "nowhere"),
            (r#"{"Name":"a","Dns":["not an address"]}"#, 400, "invalid", "Dns"),
            (r#"{"Name":"a","Colour":"red"}"#, 400, "invalid", "Colour"),
        ] {
            netd.http("POST", "/v1/sandboxes", body)?
                .problem(status, code, says)
                .with_context(|| body.to_owned())?;
        }
        ensure!(picture(&netd)? == before, "nothing has changed");
        Ok(())
    });
}

#[test]
fn services_with_wrong_fields_are_refused_by_name() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let before = netd.http("GET", "/v1/services", "")?.body;
        for (body, status, code, says) in [
            (r#"{"Name":"a"}"#, 400, "invalid", "Network"),
            (r#"{"Name":"a.b","Network":"bridge"}"#, 400, "invalid", "Name"),
            (r#"{"Name":"a","Network":"nowhere"}"#, 404, "not-found", "nowhere"),
            (r#"{"Name":"a","Network":"bridge","VIP":"fd00::1"}"#, 400, "invalid", "VIP"),
            (r#"{"Name":"a","Network":"bridge","Ports":["80/sctp"]}"#, 400, "invalid", "Ports[0]"),
            (r#"{"Name":"a","Network":"bridge","Publish":[{"TargetPort":0}]}"#, 400, "invalid", "Publish"),
            (
                r#"{"Name":"a","Network":"bridge","Publish":[{"TargetPort":70000}]}"#,
                400,
                "invalid",
                "Publish[0]",
            ),
            (r#"{"Name":"a","Network":"bridge","Publish":[{"Target":80}]}"#, 400, "invalid", "Target"),
            (
                r#"{"Name":"a","Network":"bridge","Publish":[{"TargetPort":1,"HostIP":"::ffff:1.2.3.4"}]}"#,
                400,
                "invalid",
                "IPv4 address",
            ),
            (r#"{"Name":"a","Network":"bridge","Policy":"fair"}"#, 400, "invalid", "Policy"),
            (r#"{"Name":"a","Network":"bridge","Affinity":"cookie"}"#, 400, "invalid", "Affinity"),
            (r#"{"Name":"a","Network":"bridge","Health":{"Test":"icmp"}}"#, 400, "invalid", "Health.Test"),
            (
                r#"{"Name":"a","Network":"bridge","Health":{"Test":"tcp:1","Fall":0}}"#,
                400,
                "invalid",
                "Health.Fall",
            ),
            (r#"{"Name":"a","Network":"bridge","Drain":"long"}"#, 400, "invalid", "Drain"),
            (r#"{"Name":"a","Network":"bridge","Backends":["1.2.3.4"]}"#, 400, "invalid", "Backends[0]"),
            (
                r#"{"Name":"a","Network":"bridge","EndpointMode":"external-name"}"#,
                400,
                "invalid",
                "ExternalName",
            ),
            (r#"{"Name":"a","Network":"bridge","Colour":"red"}"#, 400, "invalid", "Colour"),
        ] {
            netd.http("POST", "/v1/services", body)?
                .problem(status, code, says)
                .with_context(|| body.to_owned())?;
        }
        let drain = netd.http("POST", "/v1/services/a/drain", r#"{"Endpoint":"x"}"#)?;
        drain.problem(404, "not-found", "no service")?;
        netd.http("GET", "/v1/services?filter=colour=red", "")?.problem(400, "invalid", "colour")?;
        ensure!(netd.http("GET", "/v1/services", "")?.body == before, "nothing has changed");
        Ok(())
    });
}

#[test]
fn requests_that_are_hardly_http_harm_nobody() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let socket = netd.socket();
        let large = format!(r#"{{"Name":"{}"}}"#, "n".repeat(1 << 20));
        let refused = netd.http("POST", "/v1/networks", &large)?;
        ensure!(
            [400, 413].contains(&refused.status) && refused.body.contains("1048576 bytes"),
            "{refused:?}"
        );
        netd.http("GET", "/v1/nothing-here", "")?.problem(404, "not-found", "/v1/nothing-here")?;
        let answer = netd.http("PATCH", "/v1/networks", "{}")?;
        ensure!([400, 404, 405].contains(&answer.status), "{answer:?}");
        netd.http("GET", "/v1/networks?filter=colour=red", "")?.problem(400, "invalid", "colour")?;
        netd.http("GET", "/v1/networks?page=2", "")?.problem(400, "invalid", "page")?;
        netd.http("GET", "/v1/networks/%00%2f..", "").map(drop)?;
        for bytes in [
            b"\x16\x03\x01\x02\x00".as_slice(),
            b"GET /v1/networks\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"\0\0\0\0",
        ] {
            // Closed or answered by an error: both will do.
            if let Ok(answer) = http::raw(&socket, bytes) {
                ensure!(answer.status >= 400, "{answer:?}");
            }
        }
        netd.netd("status").map(drop)
    });
}

#[test]
fn clients_that_stop_in_the_middle_change_nothing() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let before = picture(&netd)?;
        let body = r#"{"Name":"half","Internal":true}"#;
        let head = format!("POST /v1/networks HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        for cut in [1, 10, head.len(), head.len() + body.len() - 1] {
            let whole = format!("{head}{body}");
            let mut stream = http::connect(&netd.socket())?;
            stream.write_all(&whole.as_bytes()[..cut])?;
        }
        // Many that say nothing at all do not keep others out.
        let silent: Vec<_> = (0..200).map(|_| http::connect(&netd.socket())).collect::<Result<_>>()?;
        eventually(Duration::from_secs(10), "others are served", || netd.netd("network ls").map(drop))?;
        drop(silent);
        ensure!(picture(&netd)? == before, "nothing has changed");

        // A client killed after it has asked: the whole deed, or nothing of it.
        for number in 0..10 {
            let process = netd.place.start(&format!("netd sandbox create k{number} -p 90{number}0:80"))?;
            std::thread::park_timeout(Duration::from_micros(700 * number));
            process.signal(nix::sys::signal::Signal::SIGKILL)?;
            process.wait(Duration::from_secs(5))?;
        }
        eventually(Duration::from_secs(5), "no request is still at work", || {
            let made = netd.netd("sandbox ls -q")?.stdout.lines().count();
            let namespaces = std::fs::read_dir(netd.netns_dir()).into_iter().flatten().count();
            let links = netd.place.look("ip -br link")?.matches("nv").count();
            ensure!(
                made == namespaces && made == links,
                "{made} sandboxes, {namespaces} namespaces, {links} links"
            );
            Ok(())
        })
    });
}

#[test]
fn the_command_line_refuses_with_one_clear_line() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --subnet 10.60.0.0/24")?;
        let before = picture(&netd)?;
        let long = "n".repeat(65);
        for (line, says) in [
            ("network create a/b", "a/b"),
            (&format!("network create {long}"), "64"),
            ("network create x --subnet 10.60.0.1/24", "10.60.0.0/24"),
            ("network create x --subnet 10.60.0.128/25", "app"),
            ("network create x --subnet 10.61.0.0/24 --gateway 10.62.0.1", "10.62.0.1"),
            ("network create x --subnet 10.61.0.0/24 --subnet 10.62.0.0/24", "subnet"),
            ("network create x --driver token-ring", "token-ring"),
            ("sandbox create x --network nowhere", "nowhere"),
            ("sandbox create x --network app --ip 10.70.0.1", "10.70.0.1"),
            ("sandbox create x --network app --network app", "app"),
            ("sandbox create x --network app --mac zz:zz", "zz:zz"),
            ("sandbox create x --add-host nonsense", "nonsense"),
            ("sandbox rm nobody", "nobody"),
            ("sandbox inspect nobody", "nobody"),
            ("network inspect nobody", "nobody"),
            ("network connect app nobody", "nobody"),
            ("exec nobody -- true", "nobody"),
            ("port nobody", "nobody"),
            ("publish nobody 80:80", "nobody"),
        ] {
            let refused = netd.try_netd(line)?;
            ensure!([1, 2].contains(&refused.code) && refused.stderr.contains(says), "{line}: {refused:?}");
            let one_line = refused.code == 2 || refused.stderr.trim_end().lines().count() == 1;
            ensure!(
                one_line && refused.stderr.starts_with("netd: ") | (refused.code == 2),
                "{line}: {refused:?}"
            );
            ensure!(refused.stdout.is_empty() || line.contains("inspect"), "{refused:?}");
        }
        ensure!(picture(&netd)? == before, "nothing has changed");
        Ok(())
    });
}

#[test]
fn names_with_odd_characters_are_only_names() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create br.net1")?;
        netd.create("c1.net1", "--network br.net1")?;
        netd.create("c2.net1", "--network br.net1")?;
        for name in ["c1.net1", "c1.net1.br.net1"] {
            netd.netd(&format!("exec c2.net1 -- getent hosts {name}"))?;
        }
        ensure!(
            netd.try_netd("exec c2.net1 -- getent hosts c1.net1.br.net1.google.com")?.code != 0,
            "not there"
        );
        Ok(())
    });
}

#[test]
fn a_wrong_configuration_file_is_refused_with_key_and_line() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        for (text, says) in
            [("\nsubnets = 7\n", "subnets"), ("[[[", "line"), ("state-dirr = '/x'", "state-dirr")]
        {
            let file = netd.dir().join("wrong.log");
            std::fs::write(&file, text)?;
            let refused = host.run(&format!("netd run --config {}", file.display()))?;
            let said = refused.refused(1, says)?;
            ensure!(said.stderr.contains("wrong.log"), "the file is named: {}", said.stderr);
            std::fs::remove_file(&file)?;
        }
        Ok(())
    });
}

/// All that the daemon has, and all that the kernel has for it.
fn picture(netd: &Daemon) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for line in ["network ls --format json", "sandbox ls --format json"] {
        all.push(netd.netd(line)?.stdout);
    }
    for look in ["ip -br link", "ip -br addr", "nft -s list ruleset", "ss -Htuln"] {
        all.push(netd.place.look(look)?);
    }
    Ok(all)
}
