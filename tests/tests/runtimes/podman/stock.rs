//! podman's own `network create`, with netd under the names of the plugins that it writes into the configuration.

use std::time::Duration;

use anyhow::ensure;
use netd_tests::runtimes::{Podman, Site};
use netd_tests::{eventually, scenario};

use super::DROP_IN;

#[test]
fn networks_that_podman_creates_have_names_aliases_and_ports() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, DROP_IN)?;
        podman.sh("network create --subnet 10.80.0.0/24 shop")?;
        podman.sh("network create --ipv6 --subnet 10.82.0.0/24 --subnet fd82::/64 other")?;
        podman.sh("run -d --name web --network shop --network-alias w1 --ip 10.80.0.9 -p 8080:80 -p 5353:80/udp busybox httpd -f -h /etc")?;
        podman.sh("run -d --name client --network shop busybox sleep 1000")?;
        for name in ["web", "w1", "web.dns.podman"] {
            let found = podman.exec("client", &format!("nslookup {name}"))?;
            ensure!(found.stdout.contains("10.80.0.9"), "{found:?}");
            podman.exec("client", &format!("wget -qO - http://{name}/passwd"))?;
        }
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        let elsewhere = podman.run("run --rm --network other busybox nslookup web")?;
        ensure!(elsewhere.code != 0, "a name of another network: {elsewhere:?}");
        podman.sh("network connect --alias o1 other web")?;
        podman.sh("run --rm --network other busybox wget -qO - http://o1/passwd")?;
        let six =
            podman.sh("run --rm --network other --ip 10.82.0.9 --ip6 fd82::9 busybox ip addr show eth0")?;
        ensure!(six.stdout.contains("10.82.0.9/24") && six.stdout.contains("fd82::9/64"), "{six:?}");
        podman.sh("network disconnect other web")?;
        podman.sh("network reload web")?;
        podman.exec("client", "wget -qO - http://w1/passwd")?;
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        podman.sh("rm -f -t 0 web client")?;
        podman.left_nothing()
    });
}

#[test]
fn a_network_that_is_removed_leaves_nothing_and_its_subnet_can_be_had_again() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, DROP_IN)?;
        for name in ["first", "second"] {
            podman.sh(&format!("network create --subnet 10.81.0.0/24 {name}"))?;
            let seen = podman.sh(&format!("run --rm --network {name} busybox ip addr show eth0"))?;
            ensure!(seen.stdout.contains("inet 10.81.0."), "{seen:?}");
            podman.sh(&format!("run -d --name web --network {name} busybox sleep 1000"))?;
            podman.sh(&format!("network rm -f -t 0 {name}"))?;
            podman.left_nothing()?;
            eventually(Duration::from_secs(5), "the network goes", || {
                let networks = site.netd.netd("network ls")?;
                ensure!(!networks.stdout.contains(name), "{}", networks.stdout);
                let links = site.host.look("ip -br link")?;
                ensure!(!links.contains("cni-podman"), "{links}");
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn podmans_default_network_and_isolated_and_internal_ones_work() {
    scenario(|lab| {
        let outsider = lab.host("outsider")?;
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, DROP_IN)?;
        podman.sh("run -d --name web -p 127.0.0.1:8081:80 -p 8080:80 busybox httpd -f -h /etc")?;
        outsider.sh(&format!("curl -sSf http://{}:8080/passwd", site.host.v4))?;
        site.host.sh("curl -sSf http://127.0.0.1:8081/passwd")?;
        podman.sh("run --rm --cap-add NET_RAW busybox ping -c1 -W2 198.51.100.1")?;
        let address =
            |name: &str| Ok::<_, anyhow::Error>(podman.exec(name, "hostname -i")?.text().to_owned());
        podman.sh(&format!("run --rm busybox wget -qO - http://{}/passwd", address("web")?))?;

        // podman's isolation is between networks that both have it.
        podman.sh("network create -o isolate=true apart")?;
        podman.sh("network create -o isolate=true away")?;
        podman.sh("run -d --name hermit --network apart busybox httpd -f -h /etc")?;
        let hermit = address("hermit")?;
        podman.sh(&format!("run --rm --network apart busybox wget -qO - http://{hermit}/passwd"))?;
        podman.sh("run -d --name guest --network away busybox sleep 1000")?;
        let other = podman.run(&format!("exec guest timeout 1 wget -qO - http://{hermit}/passwd"))?;
        ensure!(other.code != 0, "an isolated network reaches another");

        // An alias is no error where nothing has names.
        podman.sh("network create --disable-dns mute")?;
        let resolv =
            podman.sh("run --rm --network mute --network-alias nobody busybox cat /etc/resolv.conf")?;
        ensure!(!resolv.stdout.contains("127.0.0.11"), "{resolv:?}");

        podman.sh("network create --internal inner")?;
        let out =
            podman.run("run --rm --cap-add NET_RAW --network inner busybox ping -c1 -W1 198.51.100.1")?;
        ensure!(out.code != 0, "an internal network leads out");
        podman.sh("rm -f -t 0 web hermit guest")?;
        podman.left_nothing()
    });
}

#[test]
fn many_containers_come_at_once() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, DROP_IN)?;
        podman.sh("network create crowd")?;
        let all = |line: &(dyn Fn(usize) -> String + Sync)| {
            std::thread::scope(|scope| {
                let podman = &podman;
                let runs: Vec<_> =
                    (0..8).map(|number| scope.spawn(move || podman.sh(&line(number)))).collect();
                runs.into_iter().try_for_each(|run| run.join().expect("a run does not panic").map(drop))
            })
        };
        all(&|number| {
            format!("run -d --name c{number} --network crowd -p 810{number}:80 busybox httpd -f -h /etc")
        })?;
        for number in 0..8 {
            podman.exec("c0", &format!("wget -qO - http://c{number}/passwd"))?;
            site.host.sh(&format!("curl -sSf http://{}:810{number}/passwd", site.host.v4))?;
        }
        all(&|number| format!("rm -f -t 0 c{number}"))?;
        podman.left_nothing()
    });
}
