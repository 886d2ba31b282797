//! Broken cables: pairs of machines between which the lab's switch carries nothing. Nobody is told, and no machine sees
//! a rule of it.

use std::time::Duration;

use anyhow::Result;

use crate::host::Host;
use crate::lab::Lab;
use crate::place::Place;

pub struct Cuts {
    router: Place,
}

impl Cuts {
    /// One a lab.
    pub fn new(lab: &Lab) -> Result<Self> {
        let cuts = Self { router: lab.router.clone() };
        cuts.tell(&TABLE.join("\n"))?;
        Ok(cuts)
    }

    /// No packet passes between these two from now on, in either direction.
    pub fn between(&self, one: &Host, other: &Host) -> Result<()> {
        let (one, other) = (one.port(), other.port());
        self.tell(&format!("add element bridge lab cut {{ {one} . {other}, {other} . {one} }}"))
    }

    /// Only what `from` sends to `to` is lost.
    pub fn one_way(&self, from: &Host, to: &Host) -> Result<()> {
        self.tell(&format!("add element bridge lab cut {{ {} . {} }}", from.port(), to.port()))
    }

    /// Nor IPv4 between any two behind these ports of the switch; for good.
    pub fn ipv4_between(&self, ports: &[String]) -> Result<()> {
        let ports = ports.join(", ");
        let lost = format!("iifname {{ {ports} }} oifname {{ {ports} }} ether type {{ ip, arp }} drop");
        self.tell(&format!("add rule bridge lab forward {lost}"))
    }

    /// Ends all of them.
    pub fn heal(&self) -> Result<()> {
        self.tell("flush set bridge lab cut")
    }

    fn tell(&self, script: &str) -> Result<()> {
        self.router.run_with("nft -f -", script.as_bytes(), Duration::from_secs(10))?.success().map(drop)
    }
}

const TABLE: [&str; 4] = [
    "add table bridge lab",
    "add set bridge lab cut { type ifname . ifname; }",
    "add chain bridge lab forward { type filter hook forward priority 0; }",
    "add rule bridge lab forward iifname . oifname @cut drop",
];
