//! What really gets through the tunnels to another node. Some network devices fill in the checksums inside of tunnels
//! wrongly, and some ways carry less than their devices say: then small things work and large ones hang, or nothing
//! works and nobody says why. So every node has one tunnel more, of a network of its own, with nothing on it but a socket
//! that says back what it is told: at first what is small, then what just fits, then a [`stream`] of much more.
//!
//! An answer goes without a checksum, so that a lost one says something of the way there only.

mod stream;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use ipnetwork::IpNetwork;
use netd_sys::netlink::addr::{self, Addr};
use netd_sys::netlink::neigh::{self, Neighbour};
use netd_sys::netlink::vxlan::{self, Tunnel, Vxlan};
use netd_sys::netlink::{Op, fdb, link};
use netd_sys::{KernelError, datagram, offload};
use nix::libc;

use super::{GROUP, Kernel, bridge};
use crate::model::Id;
use crate::tables::Mac;
pub(crate) use stream::take;

pub(crate) const DEVICE: &str = "nxprobe";
/// Below those that networks are given; none can ask for it.
pub(crate) const VNI: u32 = 4095;
const PORT: u16 = 6384;
const NONCE: usize = 16;
const HEADERS: u32 = 48;
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(300);
/// Nodes that are tried at a time.
const TOGETHER: usize = 16;
const AGAIN: Duration = Duration::from_secs(60);
/// More than any device carries.
const LARGEST: usize = 1 << 16;

/// Another node to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub node: Id,
    pub number: u16,
    pub vtep: IpAddr,
    /// A node that has been away is tried again.
    pub since: SystemTime,
}

/// What arrives at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    Nothing,
    /// But not what should just fit.
    Small,
    /// But no stream of pieces that are cut up on the way.
    Packets,
    Everything,
}

/// What is to be tried, from any thread of the host's namespace.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    targets: Vec<Target>,
    device: u32,
    size: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub reached: Vec<(Target, Reach)>,
    /// More arrives when checksums are not left to the device.
    pub checksums_are_wrong: bool,
}

/// What was found last.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<Id, (SystemTime, Reach, Instant)>);

impl Kernel {
    /// What has not been tried yet, or did not go well a while ago, or (`anew`) all; its device is made ready for it.
    pub(crate) fn trial(
        &mut self,
        own: u16,
        all: Vec<Target>,
        anew: bool,
        now: Instant,
    ) -> Result<Option<Trial>, KernelError> {
        let Some(vtep) = self.vtep else { return Ok(None) };
        self.found.0.retain(|node, _| all.iter().any(|target| target.node == *node));
        let (device, mtu) = self.ensure_probe(own, &all)?;
        let is_due = |target: &Target| match self.found.0.get(&target.node) {
            _ if anew => true,
            Some((since, _, _)) if *since != target.since => true,
            Some((_, Reach::Everything, _)) => false,
            Some((_, _, at)) => now.saturating_duration_since(*at) >= AGAIN,
            None => true,
        };
        let is_near = |target: &Target| target.vtep.is_ipv4() == vtep.address.is_ipv4();
        let targets: Vec<Target> =
            all.into_iter().filter(|target| is_near(target) && is_due(target)).collect();
        let size = mtu.saturating_sub(HEADERS) as usize;
        Ok((!targets.is_empty()).then_some(Trial { targets, device, size }))
    }

    /// Takes in what a trial has shown; the tunnels follow.
    pub(crate) fn tried(&mut self, outcome: &Outcome, now: Instant) -> Result<(), KernelError> {
        for (target, reach) in &outcome.reached {
            self.found.0.insert(target.node.clone(), (target.since, *reach, now));
        }
        if !outcome.checksums_are_wrong || self.checksums_in_software {
            return Ok(());
        }
        tracing::warn!(
            "a device on the way to other nodes gets checksums inside of tunnels wrong: they are filled in before"
        );
        self.checksums_in_software = true;
        let mut tunnels = self.ours()?.into_iter().filter(|link| link.tunnel.is_some());
        tunnels.try_for_each(|tunnel| offload::set_checksums(&tunnel.name, false))
    }

    /// What arrived at which node, and how long ago.
    pub(crate) fn reach(&self, now: Instant) -> impl Iterator<Item = (&Id, Reach, Duration)> {
        self.found
            .0
            .iter()
            .map(move |(node, (_, reach, at))| (node, *reach, now.saturating_duration_since(*at)))
    }

    pub(crate) fn checksums_are_wrong(&self) -> bool {
        self.checksums_in_software
    }

    pub(crate) fn remove_probe(&mut self) -> Result<(), KernelError> {
        match self.rtnl.link(DEVICE)? {
            Some(link) if link.group == GROUP => {
                self.rtnl.transact(vec![link::delete(DEVICE).forgiving(&[libc::ENODEV])])
            }
            _ => Ok(()),
        }
    }

    fn ensure_probe(&mut self, own: u16, targets: &[Target]) -> Result<(u32, u32), KernelError> {
        let Some(vtep) = self.vtep else {
            return Err(KernelError::new(
                "make the link",
                DEVICE,
                io::Error::from(io::ErrorKind::Unsupported),
            ));
        };
        let mtu = self.underlay().map_or(super::underlay::LEAST, super::Underlay::fits);
        let wanted = Tunnel { vni: VNI, local: vtep.address, port: vtep.port };
        let found = self.rtnl.link(DEVICE)?;
        if !found.as_ref().is_some_and(|link| link.tunnel == Some(wanted) && link.mac == Some(mac(own))) {
            self.remove_probe()?;
            let spec = Vxlan {
                name: DEVICE,
                tunnel: wanted,
                mac: Some(mac(own)),
                mtu,
                group: GROUP,
                master: None,
                unfragmented: true,
            };
            self.rtnl.transact(vec![vxlan::vxlan(&spec), link::no_link_local(DEVICE), link::up(DEVICE)])?;
            if self.checksums_in_software {
                offload::set_checksums(DEVICE, false)?;
            }
        }
        let index = bridge::index_of(&mut self.rtnl, DEVICE)?;
        let address = IpNetwork::new(address(own).into(), 64);
        let mut ops: Vec<Op<'_>> = vec![link::mtu(index, mtu)];
        ops.extend(address.ok().map(|address| addr::replace(Addr { link: index, address })));
        for target in targets.iter().filter(|target| target.vtep.is_ipv4() == vtep.address.is_ipv4()) {
            ops.push(fdb::tunnel(index, mac(target.number), target.vtep));
            ops.push(neigh::replace(&Neighbour {
                link: index,
                address: address_of(target),
                mac: mac(target.number),
                permanent: true,
            }));
        }
        self.rtnl.transact(ops)?;
        Ok((index, mtu))
    }
}

impl Trial {
    pub(crate) fn device(&self) -> u32 {
        self.device
    }

    /// Takes up to some seconds when a node does not answer.
    pub(crate) fn run(&self, chance: impl Fn() -> [u8; NONCE] + Sync) -> Outcome {
        let mut reached = self.reach_all(&chance);
        let short = |reach: Reach| reach != Reach::Everything;
        let mut checksums_are_wrong = false;
        if reached.iter().any(|(_, reach)| short(*reach)) && offload::set_checksums(DEVICE, false).is_ok() {
            let mut better = Vec::new();
            for (target, before) in reached.iter_mut().filter(|(_, reach)| short(*reach)) {
                let now = self.reach(target, &chance);
                if now > *before {
                    better.push((target.clone(), now));
                    *before = now;
                }
            }
            if let Err(error) = offload::set_checksums(DEVICE, true) {
                tracing::debug!(%error, "cannot put back how checksums are filled in");
            }
            // A node that has come up in between is better reached, too: then it is reached as well as before.
            checksums_are_wrong = better.iter().any(|(target, now)| self.reach(target, &chance) < *now);
            if checksums_are_wrong && let Err(error) = offload::set_checksums(DEVICE, false) {
                tracing::debug!(%error, "cannot have checksums filled in before");
            }
        }
        Outcome { reached, checksums_are_wrong }
    }

    /// Some at a time, so that those that do not answer are waited for together.
    fn reach_all(&self, chance: &(impl Fn() -> [u8; NONCE] + Sync)) -> Vec<(Target, Reach)> {
        let some = |targets: &[Target]| -> Vec<(Target, Reach)> {
            std::thread::scope(|scope| {
                let one = |target: &Target| {
                    let tried = target.clone();
                    (target.clone(), scope.spawn(move || self.reach(&tried, chance)))
                };
                let under_way: Vec<_> = targets.iter().map(one).collect();
                let end = |(target, trial): (Target, std::thread::ScopedJoinHandle<'_, Reach>)| {
                    (target, trial.join().unwrap_or(Reach::Nothing))
                };
                under_way.into_iter().map(end).collect()
            })
        };
        self.targets.chunks(TOGETHER).flat_map(some).collect()
    }

    fn reach(&self, target: &Target, chance: &impl Fn() -> [u8; NONCE]) -> Reach {
        let to = SocketAddrV6::new(address(target.number), PORT, 0, self.device);
        let arrives = |size| match (0..TRIES).try_fold(false, |done, _| match done {
            true => Ok(true),
            false => ask(to, size, chance()),
        }) {
            Ok(arrives) => arrives,
            Err(error) => {
                tracing::debug!(node = %target.node, %error, "cannot try what arrives there");
                false
            }
        };
        match (arrives(NONCE), self.size > NONCE && arrives(self.size)) {
            (true, true) => {}
            (true, false) => return Reach::Small,
            (false, _) => return Reach::Nothing,
        }
        match stream::ask(to, chance()) {
            Ok(true) => Reach::Everything,
            Ok(false) => Reach::Packets,
            Err(error) => {
                tracing::debug!(node = %target.node, %error, "cannot try whether a stream arrives there");
                Reach::Everything
            }
        }
    }
}

fn ask(to: SocketAddrV6, size: usize, nonce: [u8; NONCE]) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    datagram::without_checksums_in(&socket)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut said = nonce.to_vec();
    said.resize(size, 0);
    let mut heard = [0; NONCE + 1];
    let answered = socket.send(&said).and_then(|_| socket.recv(&mut heard));
    match answered {
        Ok(length) => Ok(heard[..length] == nonce),
        // Nobody there yet, too large for what a host on the way has said, or no answer in time.
        Err(error) if error.raw_os_error().is_some_and(|errno| UNANSWERED.contains(&errno)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says back the first bytes of what it is told, on the probe's device, until that is gone.
pub(crate) fn answer(device: u32, own: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddrV6::new(address(own), PORT, 0, device))?;
    datagram::without_checksums_out(&socket)?;
    let mut heard = vec![0; LARGEST];
    loop {
        let (length, from) = socket.recv_from(&mut heard)?;
        if length >= NONCE {
            let _ = socket.send_to(&heard[..NONCE], from);
        }
    }
}

fn address_of(target: &Target) -> IpAddr {
    address(target.number).into()
}

/// On this link alone.
fn address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x6e64, number)
}

fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    [2, 0x6e, 0x70, 0x72, high, low]
}

const UNANSWERED: &[i32] =
    &[libc::EAGAIN, libc::ECONNREFUSED, libc::EMSGSIZE, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ENOBUFS];

#[cfg(test)]
mod tests;
