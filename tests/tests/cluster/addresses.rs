//! An address is given to one only, whoever asks at once, dies in the middle, or cannot be asked.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use netd_tests::{Cluster, eventually, scenario};

use crate::stage::{SOON, know};

fn on_node(cluster: &Cluster, number: usize) -> Result<Vec<String>> {
    let node = &cluster.nodes[number];
    let listed = node.netd("network inspect app")?.json()?;
    let containers = listed[0]["Containers"].as_object().cloned().unwrap_or_default();
    let address =
        |one: &serde_json::Value| one["IPv4Address"].as_str().map(str::to_owned).context("an address");
    containers.values().map(address).collect()
}

#[test]
fn sandboxes_made_on_all_nodes_at_once_have_addresses_of_their_own() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 3)?;
        cluster.nodes[0].netd("network create app -d overlay --subnet 10.60.0.0/24")?;
        know(&cluster, "network", "app")?;
        std::thread::scope(|scope| -> Result<()> {
            let makers: Vec<_> = cluster
                .nodes
                .iter()
                .map(|node| {
                    scope.spawn(move || {
                        (0..20).try_for_each(|number| {
                            node.netd(&format!("sandbox create {}-{number} --network app", node.host.name))
                                .map(drop)
                        })
                    })
                })
                .collect();
            makers.into_iter().try_for_each(|maker| maker.join().expect("it does not panic"))
        })?;
        let mut all = Vec::new();
        for node in &cluster.nodes {
            for number in 0..20 {
                let address: std::net::Ipv4Addr =
                    node.address(&format!("{}-{number}", node.host.name), "app")?;
                all.push(address);
            }
        }
        let distinct: BTreeSet<_> = all.iter().collect();
        ensure!(distinct.len() == 60, "{all:?}");
        // One that is taken on another node is refused, and its owner named.
        let taken = all[0];
        cluster.nodes[2]
            .try_netd(&format!("sandbox create thief --network app --ip {taken}"))?
            .refused(1, "node1")?;
        // A dead node's addresses are not given away.
        cluster.kill(&cluster.nodes[0])?;
        eventually(SOON * 2, "node1 is down to the others", || {
            let state = cluster.nodes[1].inspect("node", "node1")?["State"].clone();
            ensure!(state == "down", "{state}");
            Ok(())
        })?;
        cluster.nodes[2]
            .try_netd(&format!("sandbox create thief --network app --ip {taken}"))?
            .refused(1, "node1")?;
        for number in 0..20 {
            cluster.nodes[1].netd(&format!("sandbox create more-{number} --network app"))?;
            let address: std::net::Ipv4Addr = cluster.nodes[1].address(&format!("more-{number}"), "app")?;
            ensure!(!all.contains(&address), "{address} was given twice");
        }
        cluster.revive(&cluster.nodes[0])?;
        ensure!(on_node(&cluster, 0)?.len() >= 20, "node1 has its own again");
        Ok(())
    });
}
