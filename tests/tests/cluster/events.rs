//! What happens to services and networks of the cluster is told on every node, once.

use anyhow::{Result, ensure};
use netd_tests::{Process, eventually, scenario};
use serde_json::Value;

use crate::stage::{SOON, know, stage};

/// The actions on `name` that were told so far, in order.
fn told(events: &Process, name: &str) -> Result<Vec<String>> {
    let mut actions = Vec::new();
    for line in events.output().lines() {
        let event: Value = serde_json::from_str(line)?;
        if event["name"] == name && event["type"] != "sandbox" {
            actions.push(event["action"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(actions)
}

#[test]
fn every_node_tells_what_others_do_to_services_and_networks() {
    scenario(|lab| {
        let it = stage(lab, 1, "")?;
        let follow = |node: usize| it.node(node).place.start("netd events --format json");
        let (near, far) = (follow(1)?, follow(2)?);
        let first = it.node(1);
        eventually(SOON, "both listen", || {
            first.netd("service create probe --network app")?;
            first.netd("service rm probe")?;
            ensure!([&near, &far].iter().all(|events| events.output().contains("probe")), "not yet");
            Ok(())
        })?;
        first.netd("network create side -d overlay")?;
        first.netd("service create api --network side")?;
        first.netd("service update api --policy maglev")?;
        first.netd("service update api --policy maglev")?;
        first.netd("service rm api")?;
        first.netd("network rm side")?;
        first.netd("service drain web web1")?;
        first.netd("service drain --undo web web1")?;
        first.netd("service create last --network app")?;
        know(&it.cluster, "service", "last")?;
        for events in [&near, &far] {
            eventually(SOON, "the last is told", || {
                ensure!(told(events, "last")? == ["create"], "{}", events.output());
                Ok(())
            })?;
            ensure!(told(events, "side")? == ["create", "destroy"], "{}", events.output());
            ensure!(told(events, "api")? == ["create", "update", "remove"], "{}", events.output());
            ensure!(told(events, "web")? == ["drain", "undrain"], "{}", events.output());
        }
        // Nothing has happened just because a daemon starts.
        it.node(2).kill()?;
        it.node(2).start()?;
        let since = it.node(2).netd("events --since 1h --until 0s --format json")?.stdout;
        ensure!(!since.contains("\"service\""), "{since}");
        Ok(())
    });
}
