//! Addresses and devices as the user wants them.

use anyhow::ensure;
use netd_tests::runtimes::{Podman, Site, conflist};
use netd_tests::scenario;
use serde_json::json;

use super::SETTINGS;

#[test]
fn addresses_are_given_as_asked_or_refused_by_what_is_wrong() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        let subnets = json!([[{ "subnet": "10.72.0.0/24" }], [{ "subnet": "fd72::/64" }]]);
        conflist("shop", "shop", &json!({ "ipam": { "ranges": subnets } }))?;
        podman.sh("run -d --name web --network shop --ip 10.72.0.40 --mac-address 02:00:00:00:72:40 busybox sleep 1000")?;
        let seen = podman.exec("web", "ip addr show eth0")?;
        ensure!(
            seen.stdout.contains("10.72.0.40/24") && seen.stdout.contains("02:00:00:00:72:40"),
            "{seen:?}"
        );
        let both =
            podman.sh("run --rm --network shop --ip 10.72.0.41 --ip6 fd72::41 busybox ip addr show eth0")?;
        ensure!(both.stdout.contains("10.72.0.41/24") && both.stdout.contains("fd72::41/64"), "{both:?}");
        let by_args = podman.place.with_env("CNI_ARGS", "IP=10.72.0.42");
        let by_args = by_args.sh("podman run --rm --network shop busybox ip addr show eth0")?;
        ensure!(by_args.stdout.contains("10.72.0.42/24"), "{by_args:?}");
        for (wish, word) in
            [("10.99.0.1", "10.72.0.0/24"), ("10.72.0.40", "10.72.0.40"), ("10.72.0.1", "10.72.0.1")]
        {
            podman.run(&format!("run --rm --network shop --ip {wish} busybox true"))?.refused(126, word)?;
        }
        let settings = &podman.inspect("web")?["NetworkSettings"]["Networks"]["shop"];
        ensure!(settings["IPAddress"] == "10.72.0.40" && settings["Gateway"] == "10.72.0.1", "{settings}");
        ensure!(settings["MacAddress"] == "02:00:00:00:72:40" && settings["IPPrefixLen"] == 24, "{settings}");
        podman.sh("rm -f -t 0 web")?;
        podman.left_nothing()
    });
}

#[test]
fn a_container_is_on_two_networks_and_one_failure_takes_it_off_both() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let podman = Podman::new(&site, SETTINGS)?;
        conflist("front", "front", &json!({ "subnet": "10.73.0.0/24" }))?;
        conflist("back", "back", &json!({ "subnet": "10.74.0.0/24", "internal": true }))?;
        podman.sh("run -d --name db --network back busybox sleep 1000")?;
        let seen = podman.sh("run --rm --network front --network back busybox ip -4 addr")?;
        ensure!(seen.stdout.contains("10.73.0.") && seen.stdout.contains("10.74.0."), "{seen:?}");
        ensure!(seen.stdout.contains("eth0") && seen.stdout.contains("eth1"), "{seen:?}");
        podman.sh("run --rm --cap-add NET_RAW --network front --network back busybox ping -c1 -W2 db")?;
        podman.sh(
            "run --rm --cap-add NET_RAW --network front --network back busybox ping -c1 -W2 198.51.100.1",
        )?;
        let out =
            podman.run("run --rm --cap-add NET_RAW --network back busybox ping -c1 -W1 198.51.100.1")?;
        ensure!(out.code != 0, "an internal network leads out: {out:?}");

        let line = "run --rm --network front --network back:ip=10.99.0.1 busybox true";
        podman.run(line)?.refused(126, "10.74.0.0/24")?;
        let left = site.netd.netd("sandbox ls -q")?;
        ensure!(left.text().lines().count() == 1, "only db is there: {left:?}");
        podman.run("run --rm --network nowhere busybox true")?.refused(125, "nowhere")?;
        podman.sh("rm -f -t 0 db")?;
        podman.left_nothing()
    });
}
