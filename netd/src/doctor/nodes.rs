//! The ways to the other nodes of the cluster: what they carry, and whether devices on them do what they say.

use netd_api::system::Check;

use super::{fine, some_of, warning};
use crate::driver::{Reach, Underlay};
use crate::model::Id;

const NAME: &str = "nodes";

/// `reached`: what arrives at each node that has been tried.
pub(super) fn examine(
    underlay: &Underlay,
    reached: &[(&Id, Reach)],
    checksums_are_wrong: bool,
) -> Vec<Check> {
    let fits = underlay.fits();
    let those = |wanted: Reach| -> Vec<String> {
        reached.iter().filter(|(_, reach)| *reach == wanted).map(|(node, _)| node.to_string()).collect()
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
    if checksums_are_wrong {
        let detail = "a network device gets checksums inside of tunnels wrong: they are filled in before, which costs speed";
        checks.push(warning(
            NAME,
            detail,
            "update the device's driver, or switch its checksums for tunnels off",
        ));
    }
    if checks.is_empty() {
        let found = match reached.len() {
            0 => format!("no other node has been tried yet; packets of {fits} bytes should get through"),
            1 => format!("packets of {fits} bytes arrive at the one other node that was tried"),
            nodes => format!("packets of {fits} bytes arrive at all of {nodes} other nodes that were tried"),
        };
        checks.push(fine(NAME, found));
    }
    checks
}

#[cfg(test)]
mod tests {
    use netd_api::system::Verdict;

    use super::*;

    #[test]
    fn every_way_that_does_not_carry_what_it_should_is_named() {
        let underlay = Underlay::usual([192, 0, 2, 1].into());
        let [near, far]: [Id; 2] = ["near".into(), "far".into()];
        let told = |reached: &[(&Id, Reach)], wrong| {
            let checks = examine(&underlay, reached, wrong);
            checks.into_iter().map(|check| (check.verdict, check.detail)).collect::<Vec<_>>()
        };
        let both = [(&near, Reach::Everything), (&far, Reach::Everything)];
        for (reached, says) in [
            (&both[..0], "no other node has been tried yet; packets of 1450 bytes should get through"),
            (&both[..1], "packets of 1450 bytes arrive at the one other node that was tried"),
            (&both[..], "packets of 1450 bytes arrive at all of 2 other nodes that were tried"),
        ] {
            assert_eq!(told(reached, false), [(Verdict::Ok, says.to_owned())]);
        }
        let ill = told(&[(&near, Reach::Small), (&far, Reach::Nothing)], true);
        assert_eq!(ill.len(), 3);
        assert!(
            ill[0].1.ends_with("arrives at far") && ill[1].1.ends_with("do not arrive at near"),
            "{ill:?}"
        );
        assert!(ill.iter().all(|(verdict, _)| *verdict == Verdict::Warning));
    }
}
