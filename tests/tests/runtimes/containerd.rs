//! containerd with `ctr`: CNI without names, ports or a word to say goodbye.

use std::time::Duration;

use anyhow::ensure;
use netd_tests::runtimes::{Containerd, Site, conflist};
use netd_tests::{eventually, scenario};
use serde_json::json;

#[test]
fn a_container_in_the_foreground_is_attached_and_gone_with_its_end() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let containerd = Containerd::start(&site)?;
        conflist("10-netd", "pods", &json!({ "subnet": "10.71.0.0/24" }))?;
        let seen = containerd.run("--rm --cni", "one", "ip -4 addr show eth0")?;
        ensure!(seen.stdout.contains("inet 10.71.0."), "{seen:?}");
        let outside = containerd.run("--rm --cni", "two", "ping -c1 -W2 198.51.100.1")?;
        ensure!(outside.stdout.contains(" 0% packet loss"), "{outside:?}");
        ensure!(site.netd.netd("sandbox ls -q")?.text().is_empty(), "nothing is left");
        containerd.stop()
    });
}
#[test]
fn a_container_in_the_background_is_taken_off_when_its_namespace_is_gone() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let containerd = Containerd::start(&site)?;
        conflist("10-netd", "pods", &json!({ "subnet": "10.71.0.0/24" }))?;
        containerd.run("-d --cni", "one", "sleep 1000")?;
        containerd.inside("one")?.sh("ping -c1 -W2 198.51.100.1")?;
        ensure!(site.netd.netd("sandbox ls -q")?.text().lines().count() == 1, "it is attached");
        // ctr removes it without a word to the plugin.
        containerd.ctr("task kill -s 9 one")?;
        eventually(Duration::from_secs(5), "the task goes", || containerd.ctr("task rm one").map(drop))?;
        containerd.ctr("container rm one")?;
        eventually(Duration::from_secs(10), "netd notices", || {
            let sandboxes = site.netd.netd("sandbox ls")?;
            ensure!(!sandboxes.stdout.contains("cni-"), "{}", sandboxes.stdout);
            Ok(())
        })?;
        containerd.stop()
    });
}
