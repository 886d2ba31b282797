//! The sockets that steered ports are led to: for each family and protocol as many as there are relay threads, all on
//! one port of the kernel's choice on the loopback address, where nobody outside can knock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use netd_proxy::table::{Funnel, FunnelId, Protocol as Carried};
use netd_sys::bpf::Transport;
use netd_sys::{KernelError, socket};

use crate::model::Protocol;
use crate::tables::funnel_id;

/// Connections that wait to be accepted, of all ports together.
const BACKLOG: i32 = 16_384;

/// One funnel, as it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub protocol: Protocol,
    pub is_ipv4: bool,
}

pub(super) const KINDS: [Kind; 4] = [
    Kind { protocol: Protocol::Tcp, is_ipv4: true },
    Kind { protocol: Protocol::Tcp, is_ipv4: false },
    Kind { protocol: Protocol::Udp, is_ipv4: true },
    Kind { protocol: Protocol::Udp, is_ipv4: false },
];

impl Kind {
    pub(super) fn id(&self) -> FunnelId {
        funnel_id(self.protocol, self.is_ipv4)
    }

    pub(super) fn transport(&self) -> Transport {
        transport(self.protocol)
    }

    pub(super) fn funnel(&self) -> Funnel {
        let protocol = match self.protocol {
            Protocol::Tcp => Carried::Tcp,
            Protocol::Udp => Carried::Udp,
        };
        Funnel { id: self.id(), protocol }
    }

    pub(super) fn open(&self, workers: usize) -> Result<Vec<OwnedFd>, KernelError> {
        let loopback: IpAddr =
            if self.is_ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let address = SocketAddr::new(loopback, 0);
        match self.protocol {
            Protocol::Tcp => socket::bind_tcp_for_others(address, workers, BACKLOG),
            Protocol::Udp => socket::bind_udp_for_others(address, workers),
        }
    }
}

pub(super) fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    }
}
