//! Container to container on two nodes: over netd's overlay, and over a plain bridge and VXLAN device with a static
//! forwarding table. The nodes hang off one switch.

use anyhow::Result;
use netd_tests::Lab;

use crate::measure::Results;
use crate::programs::Programs;
use crate::rival::plain_vxlan;
use crate::scenario::Plan;
use crate::scenario::pair::{Pair, Test};

const TESTS: &[(&str, Test)] = &[
    ("overlay, bulk, 1 stream", Test::Bulk("", "overlay-1")),
    ("overlay, bulk, 8 streams", Test::Bulk("-P 8", "overlay-8")),
    ("overlay, keep-alive x 64", Test::Requests("overlay-requests")),
    ("overlay, connections x 64", Test::Connections("overlay-connections")),
    ("overlay, UDP, 64 flows x 1", Test::Datagrams("overlay-udp")),
];

pub(crate) fn run(lab: &Lab, plan: &Plan, results: &mut Results) -> Result<()> {
    let all = [plain_vxlan::pair(lab)?];
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
