//! The sockets behind 127.0.0.11:53 in a sandbox. They are bound to ports of the kernel's choice, so that a server of the
//! sandbox's own can have 0.0.0.0:53; two stateless rewrites in the sandbox's namespace turn 53 into them and back.
//! No connection tracking is involved, and none is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use netd_dns::table::{Forward, SocketUse, View};
use netd_sys::error::Doing as _;
use netd_sys::netns::Netns;
use netd_sys::nft::{
    Base, Chain, ChainKind, End, Family, Field, Hook, Nft, Part, Rule, Table, Transport, Value, Verdict,
};
use netd_sys::{KernelError, socket};
use nix::sys::socket::{AddressFamily, SockFlag, SockType};

use crate::tables::RESOLVER;

const PORT: u16 = 53;
/// Of the table in the sandbox's namespace.
const TABLE: &str = "netd-dns";
const BACKLOG: i32 = 128;
/// Before every chain that programs in the sandbox are likely to have.
const PRIORITY: i32 = -310;
/// Sockets given ahead, in the sandbox's namespace, for answers that come over TCP only.
const TCP_AHEAD: usize = 2;

/// What a view needs in its sandbox.
pub(crate) struct Opened {
    pub sockets: Vec<(SocketUse, Vec<OwnedFd>)>,
    /// Slow to close where it had to replace a table of an earlier sandbox.
    pub nft: Nft,
}

pub(crate) fn open(view: &View, netns: &Netns) -> Result<Opened, KernelError> {
    let listening = || -> Result<_, KernelError> {
        let any = SocketAddr::new(RESOLVER, 0);
        Ok((socket::bind_udp(any, 1)?, socket::bind_tcp(any, 1, BACKLOG)?, Nft::open()?))
    };
    let (udp, tcp, mut nft) = netns.run(listening)??;
    let ports = (port_of(&udp)?, port_of(&tcp)?);
    nft.create(&rewrites(ports.0, ports.1))?;
    let mut sockets = vec![(SocketUse::Udp, udp), (SocketUse::Tcp, tcp)];
    if let Forward::Own { servers } = &view.forward {
        for (v4, uses) in [
            (true, [SocketUse::UpstreamUdp4, SocketUse::UpstreamTcp4]),
            (false, [SocketUse::UpstreamUdp6, SocketUse::UpstreamTcp6]),
        ] {
            if servers.iter().any(|server| server.is_ipv4() == v4) {
                sockets.push((uses[0], upstream(uses[0], netns, 1)?));
                sockets.push((uses[1], upstream(uses[1], netns, TCP_AHEAD)?));
            }
        }
    }
    Ok(Opened { sockets, nft })
}

/// Takes the rewrites out of a namespace that lives on; the socket that did it is slow to close.
pub(crate) fn close(netns: &Netns) -> Result<Nft, KernelError> {
    let mut nft = Nft::open_in(netns)?;
    nft.delete(TABLE)?;
    Ok(nft)
}

/// Sockets in the sandbox's namespace to ask its own servers with.
pub(crate) fn upstream(used: SocketUse, netns: &Netns, count: usize) -> Result<Vec<OwnedFd>, KernelError> {
    let (family, kind) = match used {
        SocketUse::UpstreamUdp4 => (AddressFamily::Inet, SockType::Datagram),
        SocketUse::UpstreamUdp6 => (AddressFamily::Inet6, SockType::Datagram),
        SocketUse::UpstreamTcp4 => (AddressFamily::Inet, SockType::Stream),
        SocketUse::UpstreamTcp6 => (AddressFamily::Inet6, SockType::Stream),
        SocketUse::Udp | SocketUse::Tcp => return Ok(Vec::new()),
    };
    let make = || -> Result<OwnedFd, nix::errno::Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = nix::sys::socket::socket(family, kind, flags, None)?;
        if kind == SockType::Datagram {
            bind_any(&fd, family)?;
        }
        Ok(fd)
    };
    netns
        .run(|| (0..count).map(|_| make()).collect::<Result<Vec<_>, _>>())?
        .doing("open a socket in", netns.id())
}

fn bind_any(fd: &OwnedFd, family: AddressFamily) -> nix::Result<()> {
    use nix::sys::socket::{SockaddrIn, SockaddrIn6, bind};
    use std::net::{Ipv6Addr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::AsRawFd as _;
    if family == AddressFamily::Inet {
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)))
    } else {
        bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)))
    }
}

fn port_of(sockets: &[OwnedFd]) -> Result<u16, KernelError> {
    let first = sockets.first().ok_or(nix::errno::Errno::EBADF).doing("look up the socket of", RESOLVER)?;
    Ok(socket::local_address(first).doing("look up the port of", RESOLVER)?.port())
}

/// Both directions leave through the loopback device, so the output hook sees query and answer. All else that the sandbox
/// sends passes here too, and is through after two looks at an address.
fn rewrites(udp: u16, tcp: u16) -> Table {
    let ways = [(End::Destination, "asked"), (End::Source, "answered")];
    let mut chains: Vec<Chain> = Vec::from(ways.map(|(end, name)| {
        let ports = [(Transport::Udp, udp), (Transport::Tcp, tcp)];
        let rules = ports.map(|(transport, port)| match end {
            End::Destination => rewrite(end, transport, PORT, port),
            End::Source => rewrite(end, transport, port, PORT),
        });
        Chain { name: name.into(), base: None, rules: rules.into() }
    }));
    // A client may have the resolver's address, too: both ways are looked into.
    let rules = ways.map(|(end, name)| {
        let is_resolver = Part::Is(Field::Ip4(end), Value::Address(RESOLVER));
        Rule::new(vec![is_resolver, Part::Verdict(Verdict::Jump(name.into()))])
    });
    let base = Base { kind: ChainKind::Filter, hook: Hook::Output, priority: PRIORITY, accept: true };
    chains.push(Chain { name: "output".into(), base: Some(base), rules: rules.into() });
    Table { family: Family::Inet, name: TABLE.into(), sets: Vec::new(), chains }
}

fn rewrite(end: End, transport: Transport, from: u16, to: u16) -> Rule {
    Rule::new(vec![
        Part::Is(Field::Port(end, transport), Value::Port(from)),
        Part::SetPort(end, transport, to),
    ])
}
