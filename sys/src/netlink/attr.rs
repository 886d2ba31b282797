//! Reading the attributes of a message one by one, only those that are wanted. The typed parsers refuse a whole message
//! for one attribute they do not know; a host with an exotic link or route must not make netd blind to the rest.

use std::net::IpAddr;

use netlink_packet_core::NlasIterator;

/// Kind and value of each attribute after the first `header` bytes; ends at the first malformed one.
pub(crate) fn attributes(payload: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(payload.get(header..).unwrap_or_default()).map_while(Result::ok).filter_map(|nla| {
        let (kind, length) = (nla.kind(), usize::from(nla.length()));
        Some((kind, nla.into_inner().get(ATTRIBUTE..length)?))
    })
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

/// A string up to its NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(crate) fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

pub(crate) fn mac_address(value: &[u8]) -> Option<[u8; 6]> {
    value.try_into().ok()
}

const ATTRIBUTE: usize = 4;
