//! Tells the neighbours at once which MAC address an IP address now has, so that none sends to its last holder: a
//! gratuitous ARP request for IPv4, an unsolicited neighbour advertisement for IPv6. Called in the namespace of the link
//! (`Netns::run`), after the address is set and the link is up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Doing, KernelError};

/// Announces that `address` is at `mac` on the link.
pub fn announce(link: u32, mac: [u8; 6], address: IpAddr) -> Result<(), KernelError> {
    match address {
        IpAddr::V4(ip) => arp(link, mac, ip),
        IpAddr::V6(ip) => advertisement(link, mac, ip),
    }
    .doing("announce", format_args!("{address} on link {link}"))
}

/// A request in which sender and target are the same address: every listener updates an entry it has.
fn arp(link: u32, mac: [u8; 6], ip: Ipv4Addr) -> io::Result<()> {
    let ethernet_ipv4_request = [0, 1, 8, 0, 6, 4, 0, 1];
    let packet = [&ethernet_ipv4_request[..], &mac, &ip.octets(), &[0; 6], &ip.octets()].concat();
    // Protocol 0: nothing is to be received.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: link.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    };
    // SAFETY: the packet and the address outlive the call, and their lengths are their own.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// With the override flag, to all nodes; the kernel fills in the checksum.
fn advertisement(link: u32, mac: [u8; 6], ip: Ipv6Addr) -> io::Result<()> {
    let head = [NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    let target_link_address = [2, 1];
    let packet = [&head[..], &ip.octets(), &target_link_address, &mac].concat();
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_if_v6(link)?;
    // Anything else is taken for a packet from beyond the link.
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    socket.bind(&SocketAddrV6::new(ip, 0, 0, link).into())?;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    socket.send_to(&packet, &SocketAddrV6::new(all_nodes, 0, 0, link).into())?;
    Ok(())
}

const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const OVERRIDE: u8 = 0x20;
