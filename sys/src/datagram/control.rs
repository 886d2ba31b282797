//! Control messages: what the kernel tells about a datagram beside its bytes, and what it is told.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr};
use std::ptr;

use super::{Local, mark_of};

/// Room for one packet information, one destination and one segment size of either family, aligned as a control header
/// has to be. What is sent has a mark in the place of the destination.
pub(super) type Control = [usize; 16];

pub(super) const SPACE: usize = size_of::<Control>();

/// How much of the control [`write`] makes is the segment size; it comes last.
pub(super) const SEGMENT_SPACE: usize = space_of::<u16>();

const WORD: usize = size_of::<usize>();
const HEADER: usize = size_of::<libc::cmsghdr>();

/// CMSG_SPACE of a `T`.
const fn space_of<T>() -> usize {
    HEADER + size_of::<T>().next_multiple_of(WORD)
}

/// What came with a datagram.
#[derive(Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) local: Option<Local>,
    pub(super) segment: Option<u16>,
    port: u16,
}

/// Reads the control messages of a header that `recvmmsg` has filled.
///
/// # Safety
/// `header.msg_control` points to `header.msg_controllen` readable bytes written by the kernel.
pub(super) unsafe fn read(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the caller vouches for the control area.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header inside the area.
        let message = unsafe { *next };
        // SAFETY: as above; the data follows its header.
        let data = unsafe { libc::CMSG_DATA(next) };
        match (message.cmsg_level, message.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel puts this structure after a header of this type; alignment is not assumed.
                let info = unsafe { ptr::read_unaligned(data.cast::<libc::in_pktinfo>()) };
                // The address to answer from: for a broadcast it is the interface's own, not the destination.
                let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                told.local =
                    Some(Local { address: address.into(), interface: info.ipi_ifindex as u32, port: 0 });
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: as for IPv4.
                let info = unsafe { ptr::read_unaligned(data.cast::<libc::in6_pktinfo>()) };
                let address = IpAddr::from(info.ipi6_addr.s6_addr);
                told.local = Some(Local { address, interface: info.ipi6_ifindex, port: 0 });
            }
            (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) => {
                // SAFETY: as for the packet information.
                let name = unsafe { ptr::read_unaligned(data.cast::<libc::sockaddr_in>()) };
                told.port = u16::from_be(name.sin_port);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => {
                // SAFETY: as for the packet information.
                let name = unsafe { ptr::read_unaligned(data.cast::<libc::sockaddr_in6>()) };
                told.port = u16::from_be(name.sin6_port);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: the kernel puts a C int after a header of this type.
                let size = unsafe { ptr::read_unaligned(data.cast::<libc::c_int>()) };
                told.segment = u16::try_from(size).ok().filter(|&size| size > 0);
            }
            _ => {}
        }
        // SAFETY: `next` is a header inside the area the caller vouches for.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    if let Some(local) = &mut told.local {
        local.port = told.port;
    }
    told
}

/// Writes what a datagram is to be sent with, and returns how many bytes of control that makes.
pub(super) fn write(control: &mut Control, from: Option<Local>, segment: Option<u16>) -> usize {
    let mut used = 0;
    match from {
        Some(Local { address: IpAddr::V4(address), interface, .. }) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: interface as i32,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(control, &mut used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(Local { address: IpAddr::V6(address), interface, .. }) => {
            let ipi6_addr = libc::in6_addr { s6_addr: address.octets() };
            let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: interface };
            put(control, &mut used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if let Some(Local { port: port @ 1.., .. }) = from {
        put(control, &mut used, libc::SOL_SOCKET, libc::SO_MARK, mark_of(port));
    }
    if let Some(segment) = segment {
        put(control, &mut used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    used
}

/// Appends one control message. The offsets are those of CMSG_DATA and CMSG_SPACE, worked out on the slice so that a
/// control area that is too small is a panic here and not a write past its end.
fn put<T: Copy>(control: &mut Control, used: &mut usize, level: i32, kind: i32, value: T) {
    let space = space_of::<T>();
    assert!(*used + space <= SPACE, "a control message does not fit");
    let header = libc::cmsghdr { cmsg_len: HEADER + size_of::<T>(), cmsg_level: level, cmsg_type: kind };
    let start = control[*used / WORD..].as_mut_ptr();
    // SAFETY: `start` is aligned to a word, as the header is, and the assertion leaves room for it.
    unsafe { start.cast::<libc::cmsghdr>().write(header) };
    // SAFETY: the header is a whole number of words and the assertion leaves room for the value behind it.
    let data = unsafe { start.add(HEADER / WORD) };
    // SAFETY: as above; the value needs no more than a word's alignment, and its place is aligned to a word.
    unsafe { data.cast::<T>().write_unaligned(value) };
    *used += space;
}
