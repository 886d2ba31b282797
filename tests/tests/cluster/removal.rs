//! The removal of a network that its node does not live to finish.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use netd_tests::cluster::Node;
use netd_tests::{Cluster, eventually, scenario};

use crate::stage::know;

/// A lease, and what etcd takes to see that it is over.
const LEASE: Duration = Duration::from_secs(10);
const CLOSING: &str = "netd/v1/closing/";
/// Times that the node may be done before it is killed.
const ATTEMPTS: u32 = 8;

/// An overlay network that `node` has closed to remove it, when its daemon was killed. What etcd says arrives slowly, so
/// that the daemon has not heard yet that it is closed.
fn half_removed(cluster: &Cluster, node: &Node) -> Result<String> {
    for attempt in 0..ATTEMPTS {
        let name = format!("{}-{attempt}", node.host.name);
        node.netd(&format!("network create -d overlay {name}"))?;
        know(cluster, "network", &name)?;
        let etcd = cluster.etcd.host();
        let place = etcd.with_env("ETCDCTL_API", "3");
        let watch = format!("etcdctl --endpoints http://{}:2379 watch --prefix {CLOSING}", etcd.v4);
        let watch = place.start(&watch)?;
        etcd.sh("tc qdisc add dev eth0 root tbf rate 2kbit burst 600 limit 4000")?;
        let remove = node.place.start(&format!("netd network rm {name}"))?;
        watch.says("PUT")?;
        node.kill()?;
        etcd.sh("tc qdisc del dev eth0 root")?;
        let is_closed = !cluster.etcd.keys(CLOSING)?.is_empty();
        if is_closed {
            ensure!(remove.wait(LEASE)? == 1, "{}", remove.output());
            return Ok(name);
        }
        node.start()?;
    }
    bail!("the node was faster {ATTEMPTS} times")
}

/// Somebody gets a place on it, and leaves it, and it can be removed.
fn is_open(cluster: &Cluster, by: &Node, network: &str) -> Result<()> {
    eventually(LEASE, "the network is open again", || by.create("late", &format!("--network {network}")))?;
    ensure!(cluster.etcd.keys(CLOSING)?.is_empty(), "nobody removes it any more");
    by.netd("sandbox rm -f late")?;
    by.netd(&format!("network rm {network}")).map(drop)
}

#[test]
fn a_network_is_open_again_when_the_node_that_was_removing_it_is_gone_or_back() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
        let left = half_removed(&cluster, one)?;
        two.try_netd(&format!("sandbox create early --network {left}"))?.refused(1, "is being removed")?;
        is_open(&cluster, two, &left)?;

        one.start()?;
        let left = half_removed(&cluster, one)?;
        one.start()?;
        is_open(&cluster, one, &left)
    });
}
