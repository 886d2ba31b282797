//! The lab itself: what every other scenario stands on.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use netd_tests::{Place, scenario, traffic};

#[test]
fn two_hosts_reach_each_other_and_the_router() {
    scenario(|lab| {
        let (one, two) = (lab.host("one")?, lab.host("two")?);
        for to in [SocketAddr::from((two.v4, 80)), SocketAddr::from((two.v6, 80))] {
            traffic::serve(two.listen(to)?);
            traffic::exchange(&one, to, 1, 100_000, 300_000)?;
            let socket = two.udp(to)?;
            traffic::echo(socket);
            let unspecified: SocketAddr =
                if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
            traffic::ping(&one.udp(unspecified)?, to, 1, 1200)?;
        }
        one.sh("ping -c1 -W2 198.51.100.1")?;
        one.sh("ping -c1 -W2 2001:db8:51::1")?;
        ensure!(one.connect((two.v4, 81)).is_err(), "nothing listens on 81");
        Ok(())
    });
}

#[test]
fn a_lab_sees_no_link_of_the_machine_and_no_other_process() {
    scenario(|lab| {
        let links = |place: &Place| -> Result<_> { Ok(place.sh("ip -br link")?.stdout) };
        ensure!(!links(&lab.router)?.contains("eth0"), "{}", links(&lab.router)?);
        let processes = lab.router.sh("ps ax -o comm=")?.stdout;
        ensure!(processes.lines().count() <= 3, "{processes}");
        Ok(())
    });
}
