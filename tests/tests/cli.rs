//! The command line: tables for people, JSON for programs, exit codes for scripts.

use std::time::Duration;

use anyhow::{Context, ensure};
use netd_tests::{eventually, scenario};

#[test]
fn lists_are_tables_json_or_ids() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --label tier=front")?;
        netd.create("web", "--network app -p 8080:80 --label tier=front")?;
        netd.create("db", "--network app")?;
        let table = netd.netd("network ls")?.stdout;
        let head = table.lines().next().context("a head line")?;
        for column in ["NETWORK ID", "NAME", "DRIVER", "SCOPE"] {
            ensure!(head.contains(column), "{table}");
        }
        let column = head.find("NAME").context("the column NAME")?;
        for name in ["app", "bridge", "host", "none"] {
            ensure!(
                table.lines().any(|line| line.get(column..).is_some_and(|rest| rest.starts_with(name))),
                "{name}: {table}"
            );
        }
        let json = netd.netd("network ls --format json")?.json()?;
        ensure!(json.as_array().is_some_and(|all| all.iter().any(|one| one["Name"] == "app")), "{json}");
        let ids = netd.netd("sandbox ls -q")?.stdout;
        ensure!(ids.lines().count() == 2 && ids.lines().all(|id| id.len() == 12), "{ids}");
        let front = netd.netd("sandbox ls --filter label=tier=front")?.stdout;
        ensure!(front.contains("web") && !front.contains("db"), "{front}");
        netd.try_netd("sandbox ls --filter colour=red")?.refused(1, "colour")?;
        let table = netd.netd("sandbox ls")?.stdout;
        ensure!(table.contains("8080->80/tcp") || table.contains("8080"), "{table}");
        Ok(())
    });
}

#[test]
fn inspect_keeps_dockers_field_names() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --ipv6 --internal --subnet 10.80.0.0/24 -o mtu=1400 --label a=b")?;
        netd.netd("network create open")?;
        netd.create("web", "--network app --alias www --network open -p 127.0.0.1:8080:80")?;
        let network = netd.inspect("network", "app")?;
        ensure!(
            network["Name"] == "app" && network["Driver"] == "bridge" && network["Scope"] == "local",
            "{network}"
        );
        ensure!(network["Internal"] == true && network["EnableIPv6"] == true, "{network}");
        ensure!(network["IPAM"]["Config"][0]["Subnet"] == "10.80.0.0/24", "{network}");
        ensure!(network["IPAM"]["Config"][0]["Gateway"] == "10.80.0.1", "{network}");
        ensure!(network["Labels"]["a"] == "b" && network["Options"]["mtu"] == "1400", "{network}");
        let sandbox = netd.inspect("sandbox", "web")?;
        let id = sandbox["Id"].as_str().context("an id")?;
        ensure!(network["Containers"][id]["Name"] == "web", "{network}");
        let settings = &sandbox["NetworkSettings"];
        ensure!(settings["Ports"]["80/tcp"][0]["HostIp"] == "127.0.0.1", "{sandbox}");
        ensure!(settings["Ports"]["80/tcp"][0]["HostPort"] == "8080", "{sandbox}");
        let app = &settings["Networks"]["app"];
        ensure!(app["NetworkID"] == network["Id"] && app["IPPrefixLen"] == 24, "{app}");
        ensure!(
            settings["Networks"]["open"]["Gateway"].as_str().is_some_and(|gateway| gateway.ends_with(".1")),
            "{settings}"
        );
        let has = |field: &str, name: &str| {
            app[field].as_array().is_some_and(|all| all.iter().any(|one| one == name))
        };
        ensure!(has("Aliases", "www") && has("DNSNames", "web") && has("DNSNames", &id[..12]), "{app}");
        ensure!(
            sandbox["NetworkSettings"]["SandboxKey"].as_str().is_some_and(|key| key.ends_with("/web")),
            "{sandbox}"
        );
        // By name, id, and a unique part of the id; a mix of good and bad does the good ones.
        ensure!(
            netd.inspect("sandbox", id)? == sandbox && netd.inspect("sandbox", &id[..6])? == sandbox,
            "by id"
        );
        let mixed = netd.try_netd("sandbox inspect nobody web")?.refused(1, "nobody")?;
        ensure!(mixed.json()?[0]["Name"] == "web", "{mixed:?}");
        Ok(())
    });
}

#[test]
fn exec_and_run_pass_output_and_exit_code_on() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        netd.create("web", "--hostname www")?;
        ensure!(netd.try_netd("exec web -- sh -c 'exit 7'")?.code == 7, "the command's code");
        ensure!(netd.netd("exec web -- echo 'two words'")?.text() == "two words", "its output");
        let echoed = netd.place.run_with("netd exec web -- cat", b"through stdin", Duration::from_secs(5))?;
        ensure!(echoed.stdout == "through stdin", "{echoed:?}");
        ensure!(
            [126, 127].contains(&netd.try_netd("exec web -- /nothing/here")?.code),
            "as the shell has it"
        );
        let hosts = netd.netd("exec web -- cat /etc/hosts")?.stdout;
        ensure!(hosts.contains("www") && hosts.contains("127.0.0.1"), "{hosts}");
        ensure!(!std::fs::read_to_string("/etc/hosts")?.contains("www"), "the host's file is not touched");
        ensure!(netd.try_netd("sandbox run job -- sh -c 'exit 9'")?.code == 9, "run passes it on, too");
        ensure!(
            netd.try_netd("sandbox run job -- sh -c 'kill -TERM $$'")?.code == 143,
            "a signal as in the shell"
        );
        ensure!(!netd.netd("sandbox ls")?.stdout.contains("job"), "and removes the sandbox");
        Ok(())
    });
}

#[test]
fn usage_errors_are_two_and_no_daemon_is_one() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        for line in [
            "netd",
            "netd netwrok ls",
            "netd network create",
            "netd sandbox create a --colour red",
            "netd network ls --format xml",
        ] {
            let wrong = host.run(line)?;
            ensure!(wrong.code == 2 && !wrong.stderr.is_empty(), "{wrong:?}");
        }
        let alone = host
            .run("netd --socket /run/lab/nowhere.sock network ls")?
            .refused(1, "/run/lab/nowhere.sock")?;
        ensure!(alone.stderr.starts_with("netd: ") && alone.stderr.lines().count() == 1, "{alone:?}");
        for shell in ["bash", "zsh", "fish"] {
            ensure!(host.sh(&format!("netd completion {shell}"))?.stdout.contains("sandbox"), "{shell}");
        }
        ensure!(host.sh("netd --help")?.stdout.contains("sandbox"), "help");
        ensure!(host.sh("netd --version")?.stdout.starts_with("netd "), "version");
        Ok(())
    });
}

#[test]
fn events_tell_what_happens_as_it_happens() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let events = netd.place.start("netd events --format json")?;
        let human = netd.place.start("netd events --filter type=network")?;
        eventually(Duration::from_secs(5), "the streams are open", || {
            netd.netd("network create probe")?;
            netd.netd("network rm probe")?;
            ensure!(events.output().contains("probe") && human.output().contains("probe"), "not yet");
            Ok(())
        })?;
        netd.netd("network create app")?;
        netd.create("web", "--network app")?;
        netd.netd("sandbox rm web")?;
        netd.netd("network rm app")?;
        events.says(r#""name":"app""#)?;
        let said = eventually(Duration::from_secs(5), "the last event", || {
            let said = events.output();
            let ended = said.lines().any(|line| line.contains("destroy") && line.contains(r#""app""#));
            ensure!(ended, "{said}");
            Ok(said)
        })?;
        for line in said.lines() {
            let event: serde_json::Value =
                serde_json::from_str(line).with_context(|| format!("one object: {line}"))?;
            ensure!(
                event["time"].is_string() && event["type"].is_string() && event["action"].is_string(),
                "{event}"
            );
        }
        for action in ["create", "connect", "disconnect", "destroy"] {
            ensure!(said.contains(&format!(r#""action":"{action}""#)), "{action}: {said}");
        }
        ensure!(!human.output().contains("web create"), "filtered: {}", human.output());
        let past = netd.netd("events --since 1h --until 0s --format json")?.stdout;
        ensure!(past.contains(r#""name":"app""#), "{past}");
        netd.netd("network create app")?;
        netd.netd("service create shop --network app")?;
        let of_service = netd.netd("events --since 1h --until 0s --filter service=shop")?.stdout;
        ensure!(of_service.contains("service create") && of_service.lines().count() == 1, "{of_service}");
        Ok(())
    });
}

#[test]
fn status_and_doctor_say_how_things_stand() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.create("web", "-p 8080:80")?;
        let status = netd.netd("status --format json")?.json()?;
        ensure!(status["ready"] == true && status["counts"]["sandboxes"] == 1, "{status}");
        ensure!(
            status["data_plane"]["state"] == "running" && status["data_plane"]["pid"] == netd.dataplane()?,
            "{status}"
        );
        ensure!(netd.netd("status")?.stdout.contains("redb"), "the store");
        netd.netd("doctor --format json")?.json()?;
        Ok(())
    });
}
