//! Keys and values of the maps, byte for byte as `bpf/eastwest.bpf.c` has them. Addresses and ports are in the order of the
//! network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{Backend, Service, Vip};
use crate::bpf::Transport;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) namespace: u64,
    pub(super) network: u32,
    pub(super) zero: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    address: [u8; 16],
    port: [u8; 2],
    protocol: u8,
    family: u8,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceValue {
    place: Place,
    network: u32,
    slot: u64,
    affinity: u64,
    count: u32,
    zero: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) slot: u64,
    pub(super) number: u32,
    pub(super) zero: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BackendValue {
    pub(super) slot: u64,
    address: [u8; 16],
    port: [u8; 2],
    zero: [u8; 6],
}

/// A namespace that has connected to a backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    namespace: u64,
    address: [u8; 16],
}

/// Where a connected datagram socket has been led.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flow {
    asked: [u8; 16],
    backend: [u8; 16],
}

/// Of a socket's memory: two words, then pairs of a place that was asked for, a word, and the backend in its place.
const MEMORY_HEAD: usize = 8;
const PAIR: usize = size_of::<Place>() + 4 + size_of::<BackendValue>();

// As large as there, without bytes between the fields that nobody writes.
const _: () = assert!(size_of::<Member>() == 16 && size_of::<Place>() == 20 && size_of::<Seat>() == 16);
const _: () = assert!(size_of::<ServiceValue>() == 48 && size_of::<BackendValue>() == 32);

impl From<Vip> for Place {
    fn from(vip: Vip) -> Self {
        let (address, family) = match vip.address {
            IpAddr::V4(_) => (bytes(vip.address), libc::AF_INET),
            IpAddr::V6(_) => (bytes(vip.address), libc::AF_INET6),
        };
        let protocol = match vip.transport {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
        };
        // Both are small numbers.
        Self { address, port: vip.port.to_be_bytes(), protocol: protocol as u8, family: family as u8 }
    }
}

impl Place {
    pub(super) fn vip(self) -> Vip {
        let is_v4 = i32::from(self.family) == libc::AF_INET;
        let is_tcp = i32::from(self.protocol) == libc::IPPROTO_TCP;
        Vip {
            transport: if is_tcp { Transport::Tcp } else { Transport::Udp },
            address: address(self.address, is_v4),
            port: u16::from_be_bytes(self.port),
        }
    }
}

impl Told {
    pub(super) fn new(namespace: u64, backend: IpAddr) -> Self {
        Self { namespace, address: bytes(backend) }
    }
}

impl Flow {
    pub(super) fn new(vip: IpAddr, backend: IpAddr) -> Self {
        Self { asked: bytes(vip), backend: bytes(backend) }
    }
}

/// The addresses that a socket has asked for, each with that of the backend it was led to.
pub(super) fn pairs(memory: &[u8]) -> Vec<(IpAddr, IpAddr)> {
    let pair = |pair: &[u8]| {
        let (asked, rest) = pair.split_first_chunk::<16>()?;
        let is_v4 = i32::from(*rest.get(3)?) == libc::AF_INET;
        let (slot, backend) = pair.get(size_of::<Place>() + 4..)?.split_first_chunk::<8>()?;
        let is_told = *slot != [0; 8];
        is_told.then_some((address(*asked, is_v4), address(*backend.first_chunk()?, is_v4)))
    };
    memory.get(MEMORY_HEAD..).unwrap_or_default().chunks_exact(PAIR).filter_map(pair).collect()
}

impl ServiceValue {
    pub(super) fn new(vip: Vip, service: Service) -> Self {
        let affinity = service.affinity.map_or(0, |time| time.as_nanos().clamp(1, u64::MAX.into()) as u64);
        Self {
            place: vip.into(),
            network: service.network,
            slot: service.slot,
            affinity,
            count: service.count,
            zero: 0,
        }
    }

    pub(super) fn service(self) -> Service {
        let affinity = (self.affinity > 0).then(|| Duration::from_nanos(self.affinity));
        Service { slot: self.slot, network: self.network, count: self.count, affinity }
    }
}

impl BackendValue {
    pub(super) fn new(slot: u64, backend: Backend) -> Self {
        Self { slot, address: bytes(backend.address), port: backend.port.to_be_bytes(), zero: [0; 6] }
    }

    pub(super) fn backend(self) -> Backend {
        // No backend has an address of ::/32, and an IPv4 address is followed by zeroes.
        let is_v4 = self.address[4..] == [0; 12];
        Backend { address: address(self.address, is_v4), port: u16::from_be_bytes(self.port) }
    }
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

fn address(bytes: [u8; 16], is_v4: bool) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if is_v4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bytes).into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One pair of a socket's memory.
    fn memory(vip: Vip, slot: u64, backend: Backend) -> Vec<u8> {
        let Place { address, port, protocol, family } = vip.into();
        let BackendValue { slot, address: at, port: target, .. } = BackendValue::new(slot, backend);
        let asked = [&address[..], &port, &[protocol, family, 0, 0, 0, 0]].concat();
        [&asked[..], &slot.to_ne_bytes(), &at, &target, &[0; 6]].concat()
    }

    proptest! {
        #[test]
        fn what_a_socket_remembers_may_be_anything(memory: Vec<u8>) {
            pairs(&memory);
        }

        #[test]
        fn what_is_written_is_what_is_read(v4: [u8; 4], v6 in 1_u128.., port: u16, tcp: bool, is_v4: bool, seconds: u16) {
            let transport = if tcp { Transport::Tcp } else { Transport::Udp };
            let address = if is_v4 { v4.into() } else { IpAddr::from(Ipv6Addr::from(v6 | 1)) };
            let vip = Vip { transport, address, port };
            prop_assert_eq!(Place::from(vip).vip(), vip);
            let affinity = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
            let service = Service { slot: 7, network: 2, count: 3, affinity };
            prop_assert_eq!(ServiceValue::new(vip, service).service(), service);
            let backend = Backend { address, port };
            prop_assert_eq!(BackendValue::new(7, backend).backend(), backend);
            let pairs = [memory(vip, 7, backend), memory(vip, 0, backend), memory(vip, 1 << 40, backend)];
            let told = (vip.address, backend.address);
            prop_assert_eq!(super::pairs(&[vec![0; MEMORY_HEAD], pairs.concat()].concat()), [told, told]);
        }
    }
}
