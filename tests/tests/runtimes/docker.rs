//! Docker with netd as its network and IPAM plugin, as its user types it.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::runtimes::{Dockerd, Site, write};
use netd_tests::{Finished, Lab, eventually, scenario, traffic};

const PLUGIN: &str = "[docker]\nplugin = true\n";
/// Docker's own are more than this machine lets anybody have.
const LIMITS: &str = "--ulimit nofile=20000:20000 --ulimit nproc=20000";
const SLEEP: &str = "busybox sleep 1000";

fn run(docker: &Dockerd<'_>, flags: &str, image_and_command: &str) -> Result<Finished> {
    docker.run(&format!("run -d {LIMITS} {flags} {image_and_command}"))
}

fn start(docker: &Dockerd<'_>, flags: &str, image_and_command: &str) -> Result<()> {
    run(docker, flags, image_and_command)?.success().map(drop)
}

/// What a user wants to see after the last container and network were removed.
fn left_nothing(site: &Site) -> Result<()> {
    let sandboxes = site.netd.netd("sandbox ls -q")?;
    ensure!(sandboxes.text().is_empty(), "{sandboxes:?}");
    let networks = site.netd.netd("network ls")?;
    ensure!(!networks.stdout.contains("docker-"), "{networks:?}");
    eventually(Duration::from_secs(5), "no link and no port is left", || {
        let links = site.host.look("ip -br link")?;
        ensure!(!["nv", "nw", "nd-"].iter().any(|mark| links.contains(mark)), "{links}");
        let ports = site.host.look("ss -Hlntu")?;
        ensure!(ports.lines().all(|line| line.contains("127.0.0.1")), "{ports}");
        Ok(())
    })
}

#[test]
fn containers_find_each_other_and_are_published() {
    scenario(|lab: &Lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::with(lab, PLUGIN)?;
        let docker = Dockerd::start(&site)?;
        docker.sh("network create -d netd --ipam-driver netd --subnet 10.70.0.0/24 shop")?;
        let ports = "-p 8080:80 -p 127.0.0.1:8081:80 -p 7000-7001:7000-7001 -p 5300:53/udp -p 99";
        start(
            &docker,
            &format!("--name web --network shop --network-alias w1 {ports}"),
            "busybox httpd -f -h /etc",
        )?;
        start(&docker, "--name client --network shop", SLEEP)?;
        let address = docker.exec("web", "hostname -i")?;
        ensure!(address.text() == "10.70.0.2", "{address:?}");
        for name in ["web", "w1"] {
            docker.exec("client", &format!("wget -qO - http://{name}/passwd"))?;
        }
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        outsider.sh(&format!("curl -sSf http://[{}]:8080/passwd", site.host.v6))?;
        site.host.sh("curl -sSf http://127.0.0.1:8081/passwd")?;
        ensure!(outsider.connect((site.host.v4, 8081)).is_err(), "that is the host's alone");
        let web = docker.inside("web")?;
        traffic::serve(web.listen((Ipv4Addr::UNSPECIFIED, 7001))?);
        traffic::exchange(&outsider, (site.host.v4, 7001).into(), 5, 100_000, 300_000)?;
        traffic::echo(web.udp((Ipv4Addr::UNSPECIFIED, 53))?);
        traffic::ping(&outsider.udp((Ipv4Addr::UNSPECIFIED, 0))?, (site.host.v4, 5300).into(), 6, 900)?;
        // Out to the Internet under the host's address, and not straight in.
        docker.exec("client", &format!("ping -c 1 -W 5 {}", Lab::INTERNET))?;
        outsider.run(&format!("ip route add 10.70.0.0/24 via {}", site.host.v4))?;
        ensure!(
            outsider.connect((Ipv4Addr::new(10, 70, 0, 2), 80)).is_err(),
            "only a published port leads in"
        );

        let endpoint = docker.inspect("container", "web")?["NetworkSettings"]["Networks"]["shop"].clone();
        let id = endpoint["EndpointID"].as_str().context("an endpoint has an id")?.to_owned();
        let shown = site.netd.netd(&format!("port {id}"))?;
        ensure!(
            shown.stdout.contains("99/tcp -> 0.0.0.0:"),
            "a port chosen by netd can be asked for: {shown:?}"
        );
        let sandbox = site.netd.netd(&format!("sandbox inspect docker-{}", &id[..12]))?.json()?[0].clone();
        ensure!(
            sandbox["Config"]["Owner"] == "docker" && sandbox["State"]["Status"] == "running",
            "{sandbox}"
        );
        let network = &sandbox["NetworkSettings"]["Networks"];
        ensure!(network.to_string().contains(r#""Interface":"eth0""#), "{network}");
        docker.sh("rm -f web client")?;
        docker.sh("network rm shop")?;
        left_nothing(&site)
    });
}

#[test]
fn addresses_are_chosen_and_networks_joined_and_left_live() {
    scenario(|lab: &Lab| {
        let site = Site::with(lab, PLUGIN)?;
        let docker = Dockerd::start(&site)?;
        let ipam = "-d netd --ipam-driver netd";
        docker.sh(&format!("network create {ipam} --subnet 10.71.0.0/24 --gateway 10.71.0.254 --ip-range 10.71.0.128/25 --aux-address keep=10.71.0.128 -o com.docker.network.driver.mtu=1400 a"))?;
        docker.sh(&format!("network create {ipam} --ipv6 b"))?;
        // Newer command lines want a newer dockerd for a MAC address.
        let create = format!(
            "/usr/bin/docker run -d {LIMITS} --name one --network a --ip 10.71.0.33 --mac-address 02:00:00:00:00:07 -p 8080:80 busybox httpd -f -h /etc"
        );
        docker.place.sh(&create)?;
        let shown = docker.exec("one", "ip addr show eth0")?;
        for part in ["10.71.0.33/24", "02:00:00:00:00:07", "mtu 1400"] {
            ensure!(shown.stdout.contains(part), "{part}: {shown:?}");
        }
        let route = docker.exec("one", "ip route show default")?;
        ensure!(route.stdout.contains("via 10.71.0.254"), "{route:?}");
        start(&docker, "--name two --network a", SLEEP)?;
        let two = docker.exec("two", "hostname -i")?;
        ensure!(two.text() == "10.71.0.129", "behind the one kept off: {two:?}");
        run(&docker, "--name three --network a --ip 10.71.0.33", SLEEP)?.refused(125, "10.71.0.33")?;
        docker.sh("rm three")?;

        docker.sh("network connect --alias second b two")?;
        start(&docker, "--name four --network b", SLEEP)?;
        docker.exec("four", "ping -c 1 -W 5 second")?;
        docker.exec("four", "ping -6 -c 1 -W 5 second")?;
        let route = docker.exec("four", "ip -6 route show default")?;
        ensure!(route.stdout.contains("via fd"), "{route:?}");
        ensure!(docker.exec("four", "ping -c 1 -W 1 10.71.0.33").is_err(), "networks are kept apart");
        // The port moves with the network that leads out, and so does the way out.
        docker.sh("network connect b one")?;
        docker.sh("network disconnect a one")?;
        site.host.sh("curl -sSf http://127.0.0.1:8080/passwd")?;
        docker.exec("one", &format!("ping -c 1 -W 5 {}", Lab::INTERNET))?;
        docker.sh("network disconnect b two")?;
        let links = docker.exec("two", "ip link")?;
        ensure!(!links.stdout.contains("eth1"), "{links:?}");
        let members = docker.inspect("network", "b")?["Containers"].clone();
        ensure!(members.as_object().is_some_and(|members| members.len() == 2), "{members}");
        docker.sh("restart -t 0 one")?;
        site.host.sh("curl -sSf http://127.0.0.1:8080/passwd")?;
        docker.sh("rm -f one two four")?;
        docker.sh("network rm a b")?;
        left_nothing(&site)
    });
}

#[test]
fn a_clash_reaches_the_user_and_what_is_dockers_is_left_to_docker() {
    scenario(|lab: &Lab| {
        let site = Site::with(lab, PLUGIN)?;
        let docker = Dockerd::start(&site)?;
        docker.sh("network create -d netd shop")?;
        docker.sh("network create -d netd --internal closed")?;
        run(&docker, "--name ca --network shop -p 8080:80", SLEEP)?.success()?;
        let clash = run(&docker, "--name cb --network shop -p 8080:80", SLEEP)?;
        clash.refused(
            125,
            "port is already allocated: host port 8080 is published already by sandbox docker-",
        )?;
        site.netd.netd("sandbox create own -p 8090:80")?;
        run(&docker, "--name cc --network shop -p 8090:80", SLEEP)?.refused(125, "by sandbox own")?;
        let foreign = site.host.listen((Ipv4Addr::UNSPECIFIED, 8091))?;
        run(&docker, "--name cd --network shop -p 8091:80", SLEEP)?.refused(125, "another program has it")?;
        drop(foreign);
        run(&docker, "--name ce --network shop -p 80/sctp", SLEEP)?.refused(125, "sctp is not served")?;
        docker.run("network create -d netd -o colour=blue odd")?.refused(1, "has no option \"colour\"")?;
        docker
            .run("network create -d netd --subnet 10.1.0.0/24 --subnet 10.2.0.0/24 odd")?
            .refused(1, "one IPv4 subnet")?;
        let sandboxes = site.netd.netd("sandbox ls -q")?;
        ensure!(sandboxes.text().lines().count() == 2, "what failed has left nothing: {sandboxes:?}");

        let id = docker.inspect("network", "shop")?["Id"].as_str().context("an id")?[..12].to_owned();
        let name = format!("docker-{id}");
        site.netd.try_netd(&format!("network rm {name}"))?.refused(1, &format!("docker network rm {id}"))?;
        site.netd.try_netd(&format!("network connect {name} own"))?.refused(1, "docker network connect")?;
        site.netd.try_netd(&format!("sandbox create x --network {name}"))?.refused(1, "is Docker's")?;
        site.netd.netd("network prune -f")?;
        let shown = site.netd.netd(&format!("network inspect {name}"))?.json()?[0].clone();
        ensure!(shown["Owner"] == "docker", "{shown}");
        let members = shown["Containers"].as_object().context("containers")?.clone();
        let container =
            members.values().next().and_then(|member| member["Name"].as_str()).context("a name")?;
        site.netd.try_netd(&format!("sandbox rm {container}"))?.refused(1, "docker network disconnect")?;

        // An internal network has no way out and publishes nothing, and no other network of Docker's helps it out.
        start(&docker, "--name cf --network closed -p 8099:80", SLEEP)?;
        let routes = docker.exec("cf", "ip route")?;
        ensure!(!routes.stdout.contains("default"), "{routes:?}");
        ensure!(docker.exec("cf", &format!("ping -c 1 -W 1 {}", Lab::INTERNET)).is_err());
        ensure!(site.host.connect((Ipv4Addr::LOCALHOST, 8099)).is_err());
        docker.sh("rm -f ca cb cc cd ce cf")?;
        docker.sh("network rm shop closed")?;
        site.netd.netd("sandbox rm own")?;
        left_nothing(&site)
    });
}

#[test]
fn both_daemons_restart_in_either_order_under_running_containers() {
    scenario(|lab: &Lab| {
        let site = Site::with(lab, PLUGIN)?;
        write("/etc/docker/daemon.json", r#"{ "live-restore": true }"#)?;
        let docker = Dockerd::start(&site)?;
        docker.sh("network create -d netd --ipam-driver netd shop")?;
        start(&docker, "--name web --network shop -p 8080:80", "busybox httpd -f -h /etc")?;
        start(&docker, "--name client --network shop", SLEEP)?;
        let works = || {
            site.host.sh("curl -sSf http://127.0.0.1:8080/passwd")?;
            docker.exec("client", "wget -qO - http://web/passwd").map(drop)
        };
        works()?;
        site.netd.kill()?;
        site.host.sh("curl -sSf http://127.0.0.1:8080/passwd").context("the data plane serves on")?;
        site.netd.start()?;
        works().context("netd was killed")?;
        docker.kill()?;
        docker.launch()?;
        works().context("dockerd was killed")?;
        docker.kill()?;
        site.netd.kill()?;
        docker.launch()?;
        site.netd.start()?;
        works().context("both were killed, dockerd was first back")?;
        docker.stop()?;
        site.netd.terminate()?;
        site.netd.start()?;
        docker.launch()?;
        works().context("both were stopped, netd was first back")?;
        // A call that finds netd away waits for it.
        site.netd.kill()?;
        let late = site.host.start(&format!("docker run -d --name late {LIMITS} --network shop {SLEEP}"))?;
        site.netd.start()?;
        ensure!(late.wait(Duration::from_secs(30))? == 0, "{}", late.output());
        docker.exec("late", "wget -qO - http://web/passwd")?;
        docker.sh("rm -f web client late")?;
        docker.sh("network rm shop")?;
        left_nothing(&site)
    });
}

#[test]
fn what_ends_while_somebody_is_away_is_cleaned_up() {
    scenario(|lab: &Lab| {
        let site = Site::with(lab, PLUGIN)?;
        let docker = Dockerd::start(&site)?;
        docker.sh("network create -d netd --ipam-driver netd shop")?;
        start(&docker, "--name ca --network shop -p 8080:80", SLEEP)?;
        // Without live-restore dockerd ends its containers when it comes back, and takes their endpoints apart.
        docker.kill()?;
        docker.launch()?;
        eventually(Duration::from_secs(10), "the endpoint goes", || {
            ensure!(site.netd.netd("sandbox ls -q")?.text().is_empty());
            Ok(())
        })?;
        docker.sh("start ca")?;
        // The container ends with both daemons away: its namespace takes the link along.
        let pid = docker.inspect("container", "ca")?["State"]["Pid"].clone();
        let key = docker.inspect("container", "ca")?["NetworkSettings"]["SandboxKey"].clone();
        let key = key.as_str().context("a path")?.to_owned();
        docker.kill()?;
        site.netd.kill()?;
        site.host.sh(&format!("kill -9 {pid}"))?;
        site.host.sh(&format!("umount {key}"))?;
        eventually(Duration::from_secs(5), "the link ends", || {
            ensure!(!site.host.look("ip -br link")?.contains("nv"));
            Ok(())
        })?;
        site.netd.start()?;
        ensure!(site.netd.netd("sandbox ls -q")?.text().is_empty(), "netd has noticed at its start");
        ensure!(site.host.connect((Ipv4Addr::LOCALHOST, 8080)).is_err());
        docker.launch()?;
        docker.sh("start ca")?;
        docker.exec("ca", &format!("ping -c 1 -W 5 {}", Lab::INTERNET))?;
        docker.sh("kill ca")?;
        docker.sh("rm ca")?;
        docker.sh("network rm shop")?;
        left_nothing(&site)
    });
}
