//! What people who come from Docker rely on, beyond what the other subjects show.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::{Daemon, eventually, scenario, traffic};

#[test]
fn a_range_of_host_ports_is_used_up_in_order_and_used_again() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        for (name, wanted) in [("a", 9090), ("b", 9091), ("c", 9092)] {
            netd.create(name, "-p 9090-9092:80")?;
            ensure!(host_port(&netd, name, "80/tcp", 0)? == wanted, "{name} has {wanted}");
        }
        netd.try_netd("sandbox create d -p 9090-9092:80")?.refused(1, "9090-9092")?;
        netd.netd("sandbox rm b")?;
        netd.create("d", "-p 9090-9092:80")?;
        ensure!(host_port(&netd, "d", "80/tcp", 0)? == 9091, "the one that was given back");
        // One range for both protocols at once, and two host ports to one port inside.
        netd.create("e", "-p 9800-9803:80-83 -p 9800-9803:80-83/udp -p 9900:80")?;
        let ports = netd.netd("port e 80/tcp")?.stdout;
        ensure!(ports.contains("0.0.0.0:9800") && ports.contains("[::]:9900"), "{ports}");
        Ok(())
    });
}

#[test]
fn a_chosen_port_has_one_number_in_both_families() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.create("web", "-p 80 -p 81 -p 127.0.0.1::82 -p 80/udp")?;
        let mut chosen = Vec::new();
        for port in ["80/tcp", "81/tcp"] {
            let (four, six) = (host_port(&netd, "web", port, 0)?, host_port(&netd, "web", port, 1)?);
            ensure!(four == six, "{port}: {four} and {six}");
            chosen.push(four);
        }
        chosen.push(host_port(&netd, "web", "82/tcp", 0)?);
        chosen.dedup();
        ensure!(chosen.len() == 3, "no number twice: {chosen:?}");
        Ok(())
    });
}

#[test]
fn a_port_of_an_internal_network_is_served_once_there_is_a_way_in() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create inner --internal")?;
        netd.netd("network create open")?;
        let web = netd.create("web", "--network inner -p 8080:7000")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        let to = SocketAddr::from((host.v4, 8080));
        ensure!(outsider.connect(to).is_err(), "internal networks have no way in");
        netd.netd("network connect open web")?;
        traffic::exchange(&outsider, to, 1, 1000, 1000)?;
        netd.netd("network disconnect open web")?;
        ensure!(outsider.connect(to).is_err(), "and none again");
        Ok(())
    });
}

#[test]
fn a_port_follows_the_network_that_leads_out() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create one")?;
        netd.netd("network create two --ipv6")?;
        let web = netd.create("web", "--network one -p 8080:7000")?;
        traffic::serve(web.listen((Ipv6Addr::UNSPECIFIED, 7000))?); // both families
        let (four, six): (SocketAddr, SocketAddr) = ((host.v4, 8080).into(), (host.v6, 8080).into());
        traffic::exchange(&outsider, four, 1, 1000, 1000)?;
        traffic::exchange(&outsider, six, 2, 1000, 1000).context("IPv6 to a sandbox with IPv4 only")?;
        netd.netd("network connect two web")?;
        traffic::exchange(&outsider, four, 3, 1000, 1000)?;
        netd.netd("network disconnect one web")?;
        for (to, seed) in [(four, 4), (six, 5)] {
            traffic::exchange(&outsider, to, seed, 1000, 1000).context("through the network that is left")?;
        }
        ensure!(web.sh("ip route")?.stdout.contains("default via"), "the way out, too");
        web.sh("ping -c1 -W2 198.51.100.1").map(drop)
    });
}

#[test]
fn a_full_name_wins_over_the_beginning_of_an_id() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create first")?;
        let id = netd.inspect("network", "first")?["Id"].as_str().context("an id")?.to_owned();
        netd.netd(&format!("network create {}", &id[..12]))?;
        netd.netd(&format!("network rm {}", &id[..12]))?;
        ensure!(netd.inspect("network", &id[..12])?["Name"] == "first", "the one so named has gone");
        netd.netd(&format!("network rm {id}"))?;
        netd.try_netd("network inspect first")?.refused(1, "first").map(drop)
    });
}

#[test]
fn what_shares_or_has_no_network_is_neither_connected_nor_disconnected() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.netd("sandbox create onhost --network host")?;
        netd.netd("sandbox create alone --network none")?;
        netd.create("plain", "")?;
        for line in [
            "network connect app onhost",
            "network disconnect host onhost",
            "network connect app alone",
            "network connect host plain",
            "network connect none plain",
            "network disconnect app plain",
            "sandbox create named --alias other",
            "network connect bridge onhost --alias other",
        ] {
            let refused = netd.try_netd(line)?;
            ensure!(refused.code == 1, "{line}: {refused:?}");
        }
        Ok(())
    });
}

#[test]
fn the_hosts_file_of_one_does_not_tell_of_others() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --ipv6")?;
        netd.create("one", "--network app")?;
        let hosts =
            |name: &str| Ok::<_, anyhow::Error>(netd.netd(&format!("exec {name} -- cat /etc/hosts"))?.stdout);
        let before = hosts("one")?;
        let (v4, v6): (IpAddr, IpAddr) = (netd.address("one", "app")?, {
            let network = netd.inspect("sandbox", "one")?["NetworkSettings"]["Networks"]["app"].clone();
            network["GlobalIPv6Address"].as_str().context("IPv6")?.parse()?
        });
        ensure!(before.contains(&v4.to_string()) && before.contains(&v6.to_string()), "{before}");
        netd.create("two", "--network app")?;
        netd.netd("sandbox rm two")?;
        ensure!(hosts("one")? == before, "another's coming and going: {}", hosts("one")?);
        netd.netd("network create plain")?;
        netd.netd("network connect plain one")?;
        let second: IpAddr = netd.address("one", "plain")?;
        ensure!(hosts("one")?.contains(&second.to_string()), "{}", hosts("one")?);
        netd.netd("network disconnect plain one")?;
        ensure!(hosts("one")? == before, "its line goes with the network: {}", hosts("one")?);
        Ok(())
    });
}

#[test]
fn many_networks_are_there_again_after_a_crash() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        for network in ["n1", "n2", "n3"] {
            netd.netd(&format!("network create {network}"))?;
        }
        let one = netd.create("one", "--network n1 --network n2 --network n3")?;
        netd.create("two", "--network n3")?;
        netd.kill()?;
        netd.start()?;
        ensure!(one.sh("ip -br link")?.stdout.lines().count() == 4, "lo and three");
        let two: Ipv4Addr = netd.address("two", "n3")?;
        one.sh(&format!("ping -c1 -W2 {two}"))?;
        netd.netd("exec one -- getent hosts two")?;
        netd.netd("sandbox rm one two")?;
        netd.netd("network rm n1 n2 n3").map(drop)
    });
}

#[test]
fn a_bridge_of_somebody_else_is_used_and_left_as_it_was() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        // With a port of its own, as such bridges have: without any, the kernel takes its carrier off.
        for line in [
            "link add br-lan address 02:00:00:00:00:47 type bridge",
            "addr add 10.47.0.1/24 dev br-lan",
            "link add lan0 type veth peer name lan1",
            "link set lan0 master br-lan",
            "link set lan0 up",
            "link set lan1 up",
            "link set br-lan up",
        ] {
            host.sh(&format!("ip {line}"))?;
        }
        eventually(Duration::from_secs(5), "the kernel has settled", || {
            let addresses = host.look("ip -br addr")?;
            let settled =
                |name: &str| addresses.lines().any(|line| line.starts_with(name) && line.contains("fe80"));
            ensure!(["br-lan", "lan0", "lan1"].into_iter().all(settled), "{addresses}");
            ensure!(!host.look("ip -6 addr")?.contains("tentative"), "{addresses}");
            Ok(())
        })?;
        let netd = host.daemon()?;
        // Its own route is in nobody's way but that of other networks.
        netd.try_netd("network create other --subnet 10.47.0.0/24")?.refused(1, "br-lan")?;
        netd.netd("network create lan --subnet 10.47.0.0/24 -o bridge-name=br-lan")?;
        let one = netd.create("one", "--network lan")?;
        netd.create("two", "--network lan")?;
        let two: Ipv4Addr = netd.address("two", "lan")?;
        one.sh(&format!("ping -c1 -W2 {two}"))?;
        one.sh("ping -c1 -W2 10.47.0.1")?;
        netd.netd("sandbox rm one two")?;
        netd.netd("network rm lan")?;
        let left = host.sh("ip -br addr show br-lan")?.stdout;
        ensure!(left.contains("10.47.0.1/24"), "the address that was there before us: {left}");
        Ok(())
    });
}

#[test]
fn udp_reaches_the_next_owner_of_a_port_at_once() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let client = outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?;
        for round in 0..3 {
            let echo = netd.create("echo", "-p 5300:7000/udp")?;
            traffic::echo(echo.udp((Ipv4Addr::UNSPECIFIED, 7000))?);
            traffic::ping(&client, (host.v4, 5300).into(), round, 600).context("the same client's flow")?;
            netd.netd("sandbox rm echo")?;
        }
        eventually(Duration::from_secs(2), "no flow is left", || {
            let metrics = netd.http("GET", "/metrics", "")?.body;
            let open = |line: &&str| line.starts_with("netd_connections_open{") && !line.ends_with(" 0");
            let open: Vec<_> = metrics.lines().filter(open).collect();
            ensure!(open.is_empty(), "{open:?}");
            Ok(())
        })
    });
}

#[test]
fn a_fresh_daemon_has_the_three_networks_everybody_knows() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        for (name, driver, subnets) in [("bridge", "bridge", 1), ("host", "host", 0), ("none", "null", 0)] {
            let network = netd.inspect("network", name)?;
            ensure!(network["Driver"] == driver && network["Scope"] == "local", "{network}");
            ensure!(network["Internal"] == false, "{network}");
            let configured = network["IPAM"]["Config"].as_array().map_or(0, Vec::len);
            ensure!(configured == subnets, "{name} has {configured} subnets: {network}");
        }
        netd.netd("network create app --label tier=front --label team=a")?;
        netd.netd("network create spare --label tier=back")?;
        netd.create("web", "--network app")?;
        let id = netd.inspect("network", "app")?["Id"].as_str().context("an id")?.to_owned();
        for (filter, names) in [
            ("driver=bridge", vec!["app", "bridge", "spare"]),
            ("driver=host", vec!["host"]),
            ("name=spa", vec!["spare"]),
            (&format!("id={}", &id[..8]), vec!["app"]),
            ("label=team", vec!["app"]),
            ("label=tier=back", vec!["spare"]),
            ("scope=global", vec![]),
            ("type=custom", vec!["app", "spare"]),
            ("type=builtin", vec!["bridge", "host", "none"]),
            ("dangling=true", vec!["spare"]),
        ] {
            let found = netd.netd(&format!("network ls --format json --filter {filter}"))?.json()?;
            let mut found: Vec<_> =
                found.as_array().into_iter().flatten().filter_map(|one| one["Name"].as_str()).collect();
            found.sort_unstable();
            ensure!(found == names, "{filter}: {found:?}");
        }
        Ok(())
    });
}

#[test]
fn the_hosts_firewall_is_obeyed_where_it_is_meant_and_breaks_nothing_else() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        netd.netd("network create app")?;
        let web = netd.create("web", "--network app -p 8080:7000 -p 8081:7000")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        for line in [
            "nft add table inet hostfw",
            "nft 'add chain inet hostfw forward { type filter hook forward priority 10; policy drop; }'",
            "nft 'add chain inet hostfw input { type filter hook input priority 10; }'",
            "nft add rule inet hostfw input iifname eth0 tcp dport 8081 reject with tcp reset",
        ] {
            host.sh(line)?;
        }
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 1000)
            .context("nothing is forwarded for it")?;
        ensure!(outsider.connect((host.v4, 8081)).is_err(), "a port that the host refuses is refused");
        host.sh("nft delete table inet hostfw")?;
        traffic::exchange(&outsider, (host.v4, 8081).into(), 3, 1000, 1000)
    });
}

#[test]
fn links_on_user_networks_are_names_on_them() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        for network in ["one", "two"] {
            netd.netd(&format!("network create {network}"))?;
        }
        netd.create("db", "--network one")?;
        netd.netd("network connect two db")?;
        netd.create("web", "--network one --network two --link db:store")?;
        let seen = netd.netd("exec web -- getent hosts store")?.stdout;
        ensure!(!seen.trim().is_empty(), "{seen}");
        netd.netd("network disconnect one db")?;
        let left: Ipv4Addr = netd.address("db", "two")?;
        let seen = netd.netd("exec web -- getent hosts store")?.stdout;
        ensure!(seen.contains(&left.to_string()), "through the network that is left: {seen}");
        netd.netd("sandbox rm db")?;
        ensure!(netd.try_netd("exec web -- getent hosts store")?.code != 0, "it leads to nothing dead");
        Ok(())
    });
}

fn host_port(netd: &Daemon, sandbox: &str, port: &str, binding: usize) -> Result<u16> {
    let ports = netd.inspect("sandbox", sandbox)?["NetworkSettings"]["Ports"][port].clone();
    let number = ports[binding]["HostPort"].as_str().with_context(|| format!("{port} in {ports}"))?;
    Ok(number.parse()?)
}
