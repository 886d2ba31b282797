//! A port of a node that has no backend: the client comes to one node, the container runs on another.

use anyhow::Result;
use netd_tests::Lab;

use crate::measure::Results;
use crate::programs::Programs;
use crate::rival::plain_vxlan;
use crate::scenario::Plan;
use crate::scenario::pair::{Pair, Test};
use crate::site;

const TESTS: &[(&str, Test)] = &[
    ("mesh, bulk, 1 stream", Test::Bulk("", "mesh-bulk")),
    ("mesh, keep-alive x 64", Test::Requests("mesh-requests")),
    ("mesh, connections x 64", Test::Connections("mesh-connections")),
    ("mesh, UDP, 64 flows x 1", Test::Datagrams("mesh-udp")),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let client = site::client(lab, "m-client")?;
    let all = [plain_vxlan::mesh(lab, &client)?];
    let pairs: Vec<Pair> = all.into_iter().filter(|pair| plan.wants(pair.name)).collect();
    let mut programs = Vec::new();
    for pair in &pairs {
        pair.ready()?;
        programs.extend([Programs::tcp(&pair.server)?, Programs::udp(&pair.server)?]);
    }
    plan.interleave(results, &pairs, TESTS, |pair| pair.name, Pair::measure);
    drop(programs);
    Ok(())
}
