//! The parts of the address space that the host itself uses, as far as networks have to keep clear of them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostUse {
    /// A route of the host, through this device unless it has none or several.
    Route { to: IpNetwork, device: Option<Arc<str>> },
    /// A server that the host asks for names.
    Resolver(IpAddr),
    /// A subnet that Docker was promised, whoever's network will be on it.
    Promised(IpNetwork),
}

impl HostUse {
    /// None for a route that stands for "everywhere else", which nobody can keep clear of: the default route, and the
    /// halves and eighths of the address space that VPNs put in its place.
    pub(crate) fn route(to: IpNetwork, device: Option<Arc<str>>) -> Option<Self> {
        const SMALLEST_OF_EVERYWHERE: u8 = 7;
        (to.prefix() > SMALLEST_OF_EVERYWHERE).then_some(Self::Route { to, device })
    }

    pub(super) fn space(&self) -> IpNetwork {
        match self {
            Self::Route { to, .. } | Self::Promised(to) => *to,
            Self::Resolver(server) => IpNetwork::from(*server),
        }
    }
}
