//! containerd with `ctr`: CNI without names, ports or a word to say goodbye.

use anyhow::ensure;
use netd_tests::runtimes::{Containerd, Site, conflist};
use netd_tests::scenario;
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
