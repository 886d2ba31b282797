//! The programs in the kernel, and their maps.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::{Port, Station};
use crate::bpf::call::{self, Kind};
use crate::bpf::object::{Aligned, Object};
use crate::error::{Doing as _, KernelError};

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/overlay.bpf.o")));

/// Of traffic control, where packets come in (`tcx`).
const ON_INGRESS: Kind = Kind { program: 3, attach: 46 };
pub(super) const INWARD: &str = "inward";
pub(super) const OUTWARD: &str = "outward";
const STATIONS: &str = "stations";
const PORTS: &str = "ports";

#[derive(Debug)]
pub(super) struct Loaded {
    inward: OwnedFd,
    outward: OwnedFd,
    stations: OwnedFd,
    ports: OwnedFd,
}

/// As the programs have them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    network: u32,
    mac: [u8; 6],
    zero: u16,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct StationValue {
    link: u32,
    is_here: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct PortValue {
    network: u32,
    ip4: [u8; 4],
    ip6: [u8; 16],
    mac: [u8; 6],
    zero: u16,
}

impl Loaded {
    pub(super) fn open() -> Result<Self, KernelError> {
        let mut object = Object::load(&OBJECT.0, &[(INWARD, ON_INGRESS), (OUTWARD, ON_INGRESS)])?;
        Ok(Self {
            inward: object.program(INWARD)?,
            outward: object.program(OUTWARD)?,
            stations: object.map(STATIONS)?,
            ports: object.map(PORTS)?,
        })
    }

    pub(super) fn attach(&self, program: &str, link: u32) -> Result<OwnedFd, KernelError> {
        let code = if program == INWARD { &self.inward } else { &self.outward };
        call::link_to_device(code.as_fd(), ON_INGRESS, link).doing("attach a BPF program to link", link)
    }

    pub(super) fn put_port(&self, link: u32, port: &Port) -> Result<(), KernelError> {
        let value = PortValue {
            network: port.network,
            ip4: port.v4.map(|v4| v4.octets()).unwrap_or_default(),
            ip6: port.v6.map(|v6| v6.octets()).unwrap_or_default(),
            mac: port.mac,
            zero: 0,
        };
        call::put(self.ports.as_fd(), &link, &value).doing("shorten the way from link", link)
    }

    pub(super) fn remove_port(&self, link: u32) -> Result<(), KernelError> {
        gone(call::remove(self.ports.as_fd(), &link)).doing("stop shortening the way from link", link)
    }

    pub(super) fn put(&self, network: u32, mac: [u8; 6], station: Station) -> Result<(), KernelError> {
        let (link, is_here) = match station {
            Station::Here(link) => (link, 1),
            Station::There => (network, 0),
        };
        call::put(self.stations.as_fd(), &place(network, mac), &StationValue { link, is_here })
            .doing("shorten the way to a station of tunnel", network)
    }

    pub(super) fn remove(&self, network: u32, mac: [u8; 6]) -> Result<(), KernelError> {
        gone(call::remove(self.stations.as_fd(), &place(network, mac)))
            .doing("stop shortening the way to a station of tunnel", network)
    }

    pub(super) fn stations(&self, network: u32) -> Result<Vec<[u8; 6]>, KernelError> {
        let (mut found, mut last) = (Vec::new(), None);
        while let Some(next) = call::next_key::<Place>(self.stations.as_fd(), last.as_ref())
            .doing("list the stations of tunnel", network)?
        {
            found.extend((next.network == network).then_some(next.mac));
            last = Some(next);
        }
        Ok(found)
    }
}

fn place(network: u32, mac: [u8; 6]) -> Place {
    Place { network, mac, zero: 0 }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
