//! The ways to the other nodes of the cluster: what they carry, and whether devices on them do what they say.

use std::time::Duration;

use netd_api::system::Check;

use super::{fine, some_of, warning};
use crate::driver::{Reach, Underlay};
use crate::model::Id;

const NAME: &str = "nodes";

/// `reached`: what arrived at each node that has been tried, and how long ago; `is_anew`: none was tried for longer than
/// this examination waits.
pub(super) fn examine(
    underlay: &Underlay,
    reached: &[(&Id, Reach, Duration)],
    checksums_are_wrong: bool,
    is_anew: bool,
) -> Vec<Check> {
    let fits = underlay.fits();
    let those = |wanted: Reach| -> Vec<String> {
        let found = reached.iter().filter(|(_, reach, _)| *reach == wanted);
        found.map(|(node, _, since)| format!("{node} ({})", ago(*since))).collect()
    };
    let mut checks = Vec::new();
    let nothing = those(Reach::Nothing);
    if !nothing.is_empty() {
        let detail = format!("no packet of an overlay network arrives at {}", some_of(&nothing));
        let remedy = "let UDP pass between the nodes, to the port that [cluster] vxlan-port says (4789)";
        checks.push(warning(NAME, detail, remedy));
    }
    let small = those(Reach::Small);
    if !small.is_empty() {
        let detail = format!(
            "packets of {fits} bytes, the most that {} takes less {}, do not arrive at {}",
            underlay.narrowest,
            underlay.overhead(),
            some_of(&small)
        );
        let remedy = "give that device, or the route, the MTU that the way really has; or make networks with a smaller `-o mtu`";
        checks.push(warning(NAME, detail, remedy));
    }
    let packets = those(Reach::Packets);
    if !packets.is_empty() {
        let detail = format!(
            "packets arrive, but no stream whose packets a device cuts up or puts together, at {}",
            some_of(&packets)
        );
        let remedy = "switch off on the devices between the nodes, one after another: `ethtool -K DEVICE tx-udp_tnl-segmentation off gro off`";
        checks.push(warning(NAME, detail, remedy));
    }
    if !is_anew {
        let detail = "some nodes have not answered anew while this was waited for: what is told of them is of the last time";
        checks.push(warning(NAME, detail, "look at `netd node ls`, and ask again"));
    }
    if checksums_are_wrong {
        let detail = "a network device gets checksums inside of tunnels wrong: they are filled in before, which costs speed";
        checks.push(warning(
            NAME,
            detail,
            "update the device's driver, or switch its checksums for tunnels off",
        ));
    }
    if checks.is_empty() {
        let nodes = those(Reach::Everything);
        let detail = match nodes.len() {
            0 => format!("no other node has been tried yet; packets of {fits} bytes should get through"),
            _ => format!("packets of {fits} bytes and whole streams arrive at {}", some_of(&nodes)),
        };
        checks.push(fine(NAME, detail));
    }
    checks
}

/// When it was tried.
fn ago(since: Duration) -> String {
    match since.as_secs() {
        0..10 => "just now".into(),
        seconds @ 10..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use netd_api::system::Verdict;

    use super::*;

    #[test]
    fn every_way_that_does_not_carry_what_it_should_is_named() {
        let underlay = Underlay::usual([192, 0, 2, 1].into());
        let [near, far]: [Id; 2] = ["near".into(), "far".into()];
        let told = |reached: &[(&Id, Reach, Duration)], wrong, is_anew| {
            let checks = examine(&underlay, reached, wrong, is_anew);
            checks.into_iter().map(|check| (check.verdict, check.detail)).collect::<Vec<_>>()
        };
        let [now, before] = [1, 200].map(Duration::from_secs);
        let well = told(&[(&near, Reach::Everything, now), (&far, Reach::Everything, before)], false, true);
        let detail = "packets of 1450 bytes and whole streams arrive at near (just now), far (3 min ago)";
        assert_eq!(well, [(Verdict::Ok, detail.into())]);
        let none = "no other node has been tried yet; packets of 1450 bytes should get through";
        assert_eq!(told(&[], false, true), [(Verdict::Ok, none.into())]);
        let ill = told(&[(&near, Reach::Small, now), (&far, Reach::Nothing, before)], true, false);
        assert_eq!(ill.len(), 4);
        assert!(ill[0].1.ends_with("arrives at far (3 min ago)"), "{ill:?}");
        assert!(ill[1].1.ends_with("do not arrive at near (just now)"), "{ill:?}");
        let stuck = told(&[(&near, Reach::Packets, now)], false, true);
        assert!(stuck.len() == 1 && stuck[0].1.contains("no stream"), "{stuck:?}");
        assert!(ill.iter().all(|(verdict, _)| *verdict == Verdict::Warning));
    }
}
