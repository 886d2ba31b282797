//! The CNI plugin as a runtime drives it: environment and stdin in, result or error object out, on namespaces that the
//! runtime made. What it reads and prints without a daemon is tested beside the plugin.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::query::Resolver;
use netd_tests::{Daemon, Finished, Place, eventually, scenario, traffic};
use serde_json::{Value, json};

/// One container of a runtime: its id, and the namespace that the runtime has made for it.
struct Container<'a> {
    netd: &'a Daemon,
    id: &'static str,
    netns: String,
}

impl<'a> Container<'a> {
    fn new(netd: &'a Daemon, id: &'static str) -> Result<Self> {
        netd.place.sh(&format!("ip netns add {id}"))?;
        Ok(Self { netd, id, netns: format!("/run/netns/{id}") })
    }

    fn inside(&self) -> Place {
        // The absolute path takes the place of netd's own folder.
        self.netd.inside(&self.netns)
    }

    fn call(&self, verb: &str, interface: &str, config: &Value) -> Result<Finished> {
        self.call_in(verb, interface, &self.netns, config)
    }

    fn call_in(&self, verb: &str, interface: &str, netns: &str, config: &Value) -> Result<Finished> {
        let place = self
            .netd
            .place
            .with_env("CNI_CONTAINERID", self.id)
            .with_env("CNI_NETNS", netns)
            .with_env("CNI_IFNAME", interface)
            .with_env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAME={}", self.id));
        plugin(&place, verb, config)
    }

    fn add(&self, interface: &str, config: &Value) -> Result<Value> {
        self.call("ADD", interface, config)?.success()?.json()
    }

    /// DEL prints nothing.
    fn del(&self, interface: &str, netns: &str, config: &Value) -> Result<()> {
        let done = self.call_in("DEL", interface, netns, config)?.success()?;
        ensure!(done.stdout.is_empty(), "{done:?}");
        Ok(())
    }

    fn links(&self) -> Result<String> {
        Ok(self.inside().sh("ip -br link")?.stdout)
    }

    fn has_only_loopback(&self) -> Result<()> {
        eventually(Duration::from_secs(2), "the device goes", || {
            let links = self.links()?;
            ensure!(links.lines().count() == 1, "{links}");
            Ok(())
        })
    }
}

fn plugin(place: &Place, verb: &str, config: &Value) -> Result<Finished> {
    let place = place.with_env("CNI_COMMAND", verb).with_env("CNI_PATH", "/opt/cni/bin");
    place.run_with("netd-cni", config.to_string().as_bytes(), Duration::from_secs(20))
}

/// A failed call's error object.
fn error(finished: &Finished) -> Result<Value> {
    ensure!(finished.code != 0, "it should have failed: {finished:?}");
    finished.json()
}

fn config(netd: &Daemon, version: &str, name: &str) -> Value {
    json!({
        "cniVersion": version,
        "name": name,
        "type": "netd-cni",
        "socket": netd.socket(),
        "spool": netd.dir().join("spool"),
    })
}

fn with(config: &Value, key: &str, value: impl Into<Value>) -> Value {
    let mut config = config.clone();
    config[key] = value.into();
    config
}

fn sandboxes(netd: &Daemon) -> Result<usize> {
    Ok(netd.netd("sandbox ls -q")?.stdout.lines().count())
}

fn address(result: &Value) -> Result<Ipv4Addr> {
    let cidr = result["ips"][0]["address"].as_str().context("an address")?;
    cidr.split('/').next().unwrap_or_default().parse().with_context(|| format!("address of {result}"))
}

#[test]
fn a_container_is_attached_named_published_checked_and_taken_off() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let (web, client) = (Container::new(&netd, "web")?, Container::new(&netd, "client")?);
        let before = web.inside().sh("readlink /proc/self/ns/net")?.stdout;
        let bare = with(&config(&netd, "0.4.0", "app"), "subnet", "10.60.0.0/24");
        let podman = with(
            &bare,
            "runtimeConfig",
            json!({ "aliases": { "app": ["w1"] }, "portMappings": [
                { "hostPort": 8080, "containerPort": 7000, "protocol": "tcp" },
                { "HostPort": 8081, "ContainerPort": 7000, "Protocol": "", "HostIP": "" }] }),
        );
        let result = web.add("eth0", &podman)?;
        let own = &result["interfaces"][1];
        ensure!(own["name"] == "eth0" && own["sandbox"] == web.netns.as_str(), "{result}");
        ensure!(result["ips"][0]["interface"] == 1 && result["ips"][0]["gateway"] == "10.60.0.1", "{result}");
        ensure!(result["dns"]["nameservers"] == json!(["127.0.0.11"]), "{result}");
        let reply = client.add("net0", &with(&bare, "cniVersion", "1.0.0"))?;
        ensure!(reply["cniVersion"] == "1.0.0" && reply["ips"][0].get("version").is_none(), "{reply}");
        ensure!(client.links()?.contains("net0"), "the runtime chooses the device's name");

        let resolver = Resolver::new(&client.inside())?;
        for name in ["w1", "web"] {
            ensure!(resolver.addresses(name)? == [IpAddr::from(address(&result)?)], "{name}");
        }
        client.inside().sh(&format!("ping -c1 -W2 {}", address(&result)?))?;
        client.inside().sh("ping -c1 -W2 198.51.100.1")?;
        traffic::serve(web.inside().listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        for port in [8080, 8081] {
            traffic::exchange(&outsider, (host.v4, port).into(), 1, 1000, 1000)?;
        }

        let told = with(&podman, "prevResult", result.clone());
        ensure!(web.call("CHECK", "eth0", &told)?.success()?.stdout.is_empty(), "CHECK prints nothing");
        let mut other = told.clone();
        other["prevResult"]["ips"][0]["address"] = "10.60.0.99/24".into();
        ensure!(error(&web.call("CHECK", "eth0", &other)?)?["msg"].to_string().contains("10.60.0"), "a lie");

        ensure!(error(&web.call("ADD", "eth0", &podman)?)?["code"] == 100, "twice the same");
        web.del("eth0", &web.netns, &told)?;
        web.has_only_loopback()?;
        web.del("eth0", "", &podman)?;
        ensure!(error(&web.call("CHECK", "eth0", &told)?)?["code"] == 3, "CHECK knows it has gone");
        ensure!(outsider.connect((host.v4, 8080)).is_err(), "the port is closed");
        ensure!(web.inside().sh("readlink /proc/self/ns/net")?.stdout == before, "the namespace is theirs");
        client.del("net0", &client.netns, &bare)?;
        ensure!(sandboxes(&netd)? == 0, "nothing is left");
        host.sh("ip netns del web")?;
        host.sh("ip netns del client").map(drop)
    });
}

#[test]
fn a_container_is_on_two_networks_by_two_adds() {
    scenario(|lab| {
        let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
        let netd = host.daemon()?;
        let web = Container::new(&netd, "web")?;
        let ports = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 7000 }] });
        let front = with(&config(&netd, "1.1.0", "front"), "runtimeConfig", ports.clone());
        let back = with(&config(&netd, "1.1.0", "back"), "runtimeConfig", ports);
        let first = web.add("eth0", &front)?;
        let second = web.add("eth1", &back)?;
        ensure!(first["routes"][0]["dst"] == "0.0.0.0/0" && second.get("routes").is_none(), "{second}");
        ensure!(sandboxes(&netd)? == 1, "one container is one sandbox");
        traffic::serve(web.inside().listen((Ipv4Addr::UNSPECIFIED, 7000))?);
        traffic::exchange(&outsider, (host.v4, 8080).into(), 1, 1000, 1000)?;
        ensure!(
            error(&web.call("ADD", "eth1", &config(&netd, "1.1.0", "third"))?)?["code"] == 100,
            "a taken name"
        );

        host.sh("ip -n web link add eth9 type bridge")?;
        let foreign = error(&web.call("ADD", "eth9", &config(&netd, "1.1.0", "third"))?)?;
        ensure!(foreign["details"].to_string().contains("eth9 already"), "{foreign}");
        host.sh("ip -n web link del eth9").context("it is left to whom it belongs")?;

        web.del("eth0", "", &front)?;
        eventually(Duration::from_secs(2), "eth0 goes alone", || {
            let links = web.links()?;
            ensure!(links.contains("eth1") && !links.contains("eth0"), "{links}");
            Ok(())
        })?;
        traffic::exchange(&outsider, (host.v4, 8080).into(), 2, 1000, 1000)?;
        web.del("eth1", "", &back)?;
        ensure!(sandboxes(&netd)? == 0, "the last network takes the sandbox along");
        host.sh("ip netns del web").map(drop)
    });
}

#[test]
fn what_left_while_the_daemon_was_away_goes_when_it_is_back() {
    scenario(|lab| {
        let host = lab.host("n1")?;
        let netd = host.daemon()?;
        let (web, other) = (Container::new(&netd, "web")?, Container::new(&netd, "other")?);
        let app = config(&netd, "1.1.0", "app");
        let fixed = with(
            &app,
            "runtimeConfig",
            json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] }),
        );
        web.add("eth0", &fixed)?;
        ensure!(plugin(&netd.place, "STATUS", &app)?.code == 0, "it serves");
        netd.kill()?;
        ensure!(error(&other.call("ADD", "eth0", &app)?)?["code"] == 11, "try again");
        ensure!(error(&plugin(&netd.place, "STATUS", &app)?)?["code"] == 50, "it does not serve");
        web.del("eth0", "", &fixed)?;
        netd.start()?;
        ensure!(sandboxes(&netd)? == 1, "the daemon has not been told yet");
        // The note is carried out before the port is asked for.
        other.add("eth0", &fixed)?;
        ensure!(sandboxes(&netd)? == 1, "one went, one came");
        web.has_only_loopback()?;

        // A runtime that dies takes its namespace along and sends no DEL.
        host.sh("ip netns del other")?;
        web.add("eth0", &fixed)?;
        ensure!(sandboxes(&netd)? == 1, "the dead one had the port");
        web.del("eth0", &web.netns, &fixed)?;
        host.sh("ip netns del web").map(drop)
    });
}

#[test]
fn gc_frees_what_is_not_listed_on_its_own_network() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let (one, two) = (Container::new(&netd, "one")?, Container::new(&netd, "two")?);
        let (app, db) = (config(&netd, "1.1.0", "app"), config(&netd, "1.1.0", "db"));
        one.add("eth0", &app)?;
        two.add("eth0", &app)?;
        two.add("eth1", &db)?;
        netd.netd("sandbox create mine --network app")?;
        ensure!(error(&plugin(&netd.place, "GC", &app)?)?["code"] == 7, "no list is no order");
        ensure!(sandboxes(&netd)? == 3, "and changes nothing");
        let list = json!([{ "containerID": "one", "ifname": "eth0" }]);
        plugin(&netd.place, "GC", &with(&app, "cni.dev/valid-attachments", list))?.success()?;
        ensure!(one.links()?.contains("eth0"), "it is listed");
        eventually(Duration::from_secs(2), "two leaves app and stays on db", || {
            let links = two.links()?;
            ensure!(links.contains("eth1") && !links.contains("eth0"), "{links}");
            Ok(())
        })?;
        for config in [&app, &db] {
            plugin(&netd.place, "GC", &with(config, "cni.dev/valid-attachments", json!([])))?.success()?;
        }
        one.has_only_loopback()?;
        two.has_only_loopback()?;
        ensure!(netd.netd("sandbox ls")?.stdout.contains("mine"), "what no runtime made is nobody's garbage");
        netd.place.sh("ip netns del one")?;
        netd.place.sh("ip netns del two").map(drop)
    });
}

#[test]
fn many_containers_come_at_once_on_a_network_that_nobody_has_made() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let ids = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c10", "c11"];
        let containers = ids.map(|id| Container::new(&netd, id)).into_iter().collect::<Result<Vec<_>>>()?;
        let app = with(&config(&netd, "1.0.0", "app"), "ipv6", true);
        let at_once = |deed: &(dyn Fn(&Container<'_>) -> Result<Value> + Sync)| {
            std::thread::scope(|scope| {
                let all: Vec<_> = containers.iter().map(|one| scope.spawn(move || deed(one))).collect();
                all.into_iter()
                    .map(|one| one.join().expect("a deed does not panic"))
                    .collect::<Result<Vec<_>>>()
            })
        };
        let results = at_once(&|one| one.add("eth0", &app))?;
        let addresses = results.iter().map(address).collect::<Result<BTreeSet<_>>>()?;
        ensure!(addresses.len() == containers.len(), "each has its own: {addresses:?}");
        ensure!(
            results[0]["ips"][1]["gateway"] == results[1]["ips"][1]["gateway"],
            "both families: {results:?}"
        );
        at_once(&|one| one.del("eth0", &one.netns, &app).map(|()| Value::Null))?;
        ensure!(sandboxes(&netd)? == 0, "all are gone");

        // The default network has no names, so there is no server to tell of.
        let plain = containers[0].add("eth0", &with(&app, "network", "bridge"))?;
        ensure!(plain.get("dns").is_none(), "{plain}");
        containers[0].del("eth0", "", &with(&app, "network", "bridge"))?;
        containers.iter().try_for_each(|one| netd.place.sh(&format!("ip netns del {}", one.id)).map(drop))
    });
}
