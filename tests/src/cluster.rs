//! Several machines with one store: etcd on a machine of its own, and nodes whose daemons use it. Nodes lose
//! their power and come back; networks between them are cut and healed.
//!
//!   scenario -> Cluster -> nodes (a host and its daemon), `Etcd`, cuts

use std::net::IpAddr;
use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cuts::Cuts;
use crate::daemon::{Daemon, Setup};
use crate::etcd::Etcd;
use crate::eventually::eventually;
use crate::host::Host;
use crate::lab::Lab;
use crate::place::Place;
use crate::snapshot::processes;

pub struct Cluster {
    pub etcd: Etcd,
    pub nodes: Vec<Node>,
    pub cuts: Cuts,
    router: Place,
    prefix: String,
    /// Nodes reach each other by IPv6.
    by_ipv6: bool,
}

/// A machine with its daemon.
pub struct Node {
    pub host: Host,
    pub netd: Daemon,
}

impl Deref for Node {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.netd
    }
}

impl Cluster {
    /// etcd, and `count` nodes (node1, node2, ...) that know each other.
    pub fn start(lab: &Lab, count: usize) -> Result<Self> {
        Self::with(lab, count, &Setup::default())
    }

    /// The same with more configuration and arguments for each of the daemons.
    pub fn with(lab: &Lab, count: usize, setup: &Setup) -> Result<Self> {
        let mut cluster = Self::empty(lab, "")?;
        for _ in 0..count {
            cluster.launch(lab, setup, &[])?;
        }
        cluster.settled()?;
        Ok(cluster)
    }

    /// Nodes between which IPv6 alone passes.
    pub fn over_ipv6(lab: &Lab, count: usize) -> Result<Self> {
        let mut cluster = Self { by_ipv6: true, ..Self::empty(lab, "")? };
        for _ in 0..count {
            cluster.launch(lab, &Setup::default(), &[])?;
        }
        let ports: Vec<_> = cluster.nodes.iter().map(|node| node.host.port()).collect();
        cluster.cuts.ipv4_between(&ports)?;
        cluster.settled()?;
        Ok(cluster)
    }

    /// etcd alone; the names of its machines begin so, where a lab has several clusters.
    pub fn empty(lab: &Lab, prefix: &str) -> Result<Self> {
        let etcd = Etcd::start(&lab.host(&format!("{prefix}etcd"))?)?;
        let (cuts, router, prefix) = (Cuts::new(lab)?, lab.router.clone(), prefix.to_owned());
        Ok(Self { etcd, nodes: Vec::new(), cuts, router, prefix, by_ipv6: false })
    }

    /// Nodes whose clocks are so many seconds off, by a library that replaces what the C library tells them.
    pub fn skewed(lab: &Lab, library: &str, seconds: &[i64]) -> Result<Self> {
        let mut cluster = Self::empty(lab, "")?;
        for skew in seconds {
            let clock = [("LD_PRELOAD", library.to_owned()), ("CLOCK_SKEW", skew.to_string())];
            cluster.launch(lab, &Setup::default(), &clock)?;
        }
        cluster.settled()?;
        Ok(cluster)
    }

    fn settled(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.ready())?;
        self.all_know_all()
    }

    /// One node more.
    pub fn join(&mut self, lab: &Lab, setup: &Setup) -> Result<&Node> {
        self.launch(lab, setup, &[])?;
        self.settled()?;
        self.nodes.last().context("it was just added")
    }

    fn launch(&mut self, lab: &Lab, setup: &Setup, env: &[(&str, String)]) -> Result<()> {
        let name = format!("{}node{}", self.prefix, self.nodes.len() + 1);
        let host = lab.host(&name)?;
        let mut setup = setup.clone();
        let address = if self.by_ipv6 { IpAddr::from(host.v6) } else { host.v4.into() };
        let store = self.etcd.url();
        setup.arguments += &format!(" --store {store} --advertise-addr {address} --name {name}");
        let netd = host.daemon_launched(setup, env)?;
        self.nodes.push(Node { host, netd });
        Ok(())
    }

    fn all_know_all(&self) -> Result<()> {
        let count = self.nodes.len();
        self.everywhere(READY, "every node is known and ready", |node| {
            let known = node.place.look("netd node ls --format json")?;
            let known: serde_json::Value = serde_json::from_str(&known).with_context(|| known.clone())?;
            let states: Vec<_> = known.as_array().into_iter().flatten().map(|one| &one["State"]).collect();
            ensure!(states.len() == count && states.iter().all(|state| *state == "ready"), "{known}");
            Ok(())
        })
    }

    /// Asks each node until all are content.
    pub fn everywhere(
        &self,
        deadline: Duration,
        what: &str,
        ask: impl Fn(&Node) -> Result<()>,
    ) -> Result<()> {
        eventually(deadline, what, || {
            self.nodes.iter().try_for_each(|node| ask(node).with_context(|| format!("on {}", node.host.name)))
        })
    }

    pub fn cut_from_etcd(&self, node: &Node) -> Result<()> {
        self.cuts.between(&node.host, self.etcd.host())
    }

    pub fn cut_from_peers(&self, node: &Node) -> Result<()> {
        let peers = self.nodes.iter().filter(|peer| peer.host.name != node.host.name);
        peers.into_iter().try_for_each(|peer| self.cuts.between(&node.host, &peer.host))
    }

    /// From etcd and from all peers, while clients on other machines still reach it.
    pub fn isolate(&self, node: &Node) -> Result<()> {
        self.cut_from_etcd(node)?;
        self.cut_from_peers(node)
    }

    /// The machine loses its power: its link goes down, and everything that runs on it is killed.
    pub fn kill(&self, node: &Node) -> Result<()> {
        self.router.sh(&format!("ip link set {} down", node.host.port()))?;
        let mut places = vec![node.host.namespace_id()?];
        for sandbox in node.netd.sandboxes() {
            places.push(sandbox.namespace_id()?);
        }
        for process in
            processes()?.iter().filter(|one| one.netns.is_some_and(|netns| places.contains(&netns)))
        {
            // It may have ended with its parent.
            let _ = kill(Pid::from_raw(process.pid.try_into()?), Signal::SIGKILL);
        }
        node.netd.reaped()
    }

    /// Its power is back: the link, and the daemon. What ran in its sandboxes does not come back by itself.
    pub fn revive(&self, node: &Node) -> Result<()> {
        self.router.sh(&format!("ip link set {} up", node.host.port()))?;
        node.netd.start()
    }
}

const READY: Duration = Duration::from_secs(15);
