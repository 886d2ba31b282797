//! What a hop says, byte by byte. Pure. All numbers are big-endian.
//!
//! ```text
//! 0   "ndh"                      what this is
//! 3   version                    VERSION; a newer one is answered with Status::Version and not read any further
//! 4   length u16                 of all of it, the signature included
//! 6   flags                      AS_CLIENT, PROXY_V1 or PROXY_V2, DATAGRAM
//! 7   target port u16
//! 9   nonce u64                  comes back with each answer to a datagram; 0 for a connection
//! 17  client, then asked for     each: 4 or 6, address, port u16
//!     service, then backend      each: length u8, name
//!     signature                  the first 16 bytes of HMAC-SHA256 over all before, with the cluster's token
//! ```
//!
//! The token itself is never sent. A header that is heard and sent again is of use only to a live node (others are not
//! listened to), and does what any client of the service may do; clocks of nodes may be minutes apart, so none is asked.

use std::net::{IpAddr, SocketAddr};

use hmac::digest::KeyInit as _;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::metrics::Failure;
use crate::table::{ProxyProtocol, Token};

pub(crate) const VERSION: u8 = 1;
const MAGIC: [u8; 3] = *b"ndh";
const FIXED: usize = 17;
const SIGNATURE: usize = 16;
/// Of two names of 255 bytes and two IPv6 addresses.
pub(crate) const LONGEST: usize = FIXED + 2 * 19 + 2 * 256 + SIGNATURE;

const AS_CLIENT: u8 = 1;
const PROXY_V1: u8 = 2;
const PROXY_V2: u8 = 4;
const DATAGRAM: u8 = 8;

/// The cluster's token, made ready to sign with.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

impl Key {
    pub(crate) fn new(token: &Token) -> Self {
        // As long as a block of the hash; a shorter key is defined to be filled up like this.
        let mut block = [0; 64];
        block[..token.0.len()].copy_from_slice(&token.0);
        Self(Hmac::new(&block.into()))
    }

    fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE] {
        let whole = self.0.clone().chain_update(bytes).finalize().into_bytes();
        let mut signature = [0; SIGNATURE];
        signature.copy_from_slice(&whole[..SIGNATURE]);
        signature
    }

    /// Whether a whole header is signed with this token. Takes the same time whatever the difference is.
    pub(crate) fn has_signed(&self, whole: &[u8]) -> bool {
        let Some((signed, signature)) = whole.split_last_chunk::<SIGNATURE>() else { return false };
        self.0.clone().chain_update(signed).verify_truncated_left(signature).is_ok()
    }
}

/// What a node asks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub(crate) service: &'a str,
    pub(crate) backend: &'a str,
    pub(crate) target_port: u16,
    pub(crate) client: SocketAddr,
    pub(crate) asked: SocketAddr,
    /// The backend is to see the client's address, if that can be.
    pub(crate) as_client: bool,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) nonce: u64,
    pub(crate) is_datagram: bool,
}

/// What the bytes heard so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard<'a> {
    /// The beginning of a header.
    Part,
    /// A header, and how long it is.
    Header(Header<'a>, usize),
    Wrong(Status),
}

impl Header<'_> {
    /// Appends the header; false, and nothing appended, when a name is too long.
    #[must_use]
    pub(crate) fn write(&self, key: &Key, out: &mut Vec<u8>) -> bool {
        let (Ok(service), Ok(backend)) = (u8::try_from(self.service.len()), u8::try_from(self.backend.len()))
        else {
            return false;
        };
        let start = out.len();
        out.extend(MAGIC);
        out.extend([VERSION, 0, 0]);
        out.push(self.flags());
        out.extend(self.target_port.to_be_bytes());
        out.extend(self.nonce.to_be_bytes());
        write_address(self.client, out);
        write_address(self.asked, out);
        for (length, name) in [(service, self.service), (backend, self.backend)] {
            out.push(length);
            out.extend(name.as_bytes());
        }
        // At most LONGEST.
        let length = (out.len() - start + SIGNATURE) as u16;
        out[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
        let signature = key.sign(&out[start..]);
        out.extend(signature);
        true
    }

    fn flags(&self) -> u8 {
        let proxy = match self.proxy_protocol {
            None => 0,
            Some(ProxyProtocol::V1) => PROXY_V1,
            Some(ProxyProtocol::V2) => PROXY_V2,
        };
        proxy | if self.as_client { AS_CLIENT } else { 0 } | if self.is_datagram { DATAGRAM } else { 0 }
    }
}

fn write_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.extend(address.port().to_be_bytes());
}

/// Reads what has come so far. Nothing behind the length is looked at before the signature has been.
pub(crate) fn read<'a>(key: &Key, bytes: &'a [u8]) -> Heard<'a> {
    let whole = match frame(bytes) {
        Ok(Some(whole)) => whole,
        Ok(None) => return Heard::Part,
        Err(status) => return Heard::Wrong(status),
    };
    if !key.has_signed(whole) {
        return Heard::Wrong(Status::Denied);
    }
    match fields(whole) {
        Some(header) => Heard::Header(header, whole.len()),
        None => Heard::Wrong(Status::Malformed),
    }
}

/// The header that a datagram begins with, and its bytes. Whether it is signed is still to be looked at
/// ([`Key::has_signed`]), unless the same bytes have been before.
pub(crate) fn split(datagram: &[u8]) -> Result<(Header<'_>, &[u8]), Status> {
    let whole = frame(datagram)?.ok_or(Status::Malformed)?;
    Ok((fields(whole).ok_or(Status::Malformed)?, whole))
}

/// The bytes of a header, if all of them are there.
fn frame(bytes: &[u8]) -> Result<Option<&[u8]>, Status> {
    let compared = bytes.len().min(MAGIC.len());
    if bytes[..compared] != MAGIC[..compared] {
        return Err(Status::Malformed);
    }
    match bytes.get(3) {
        Some(&VERSION) => {}
        Some(_) => return Err(Status::Version),
        None => return Ok(None),
    }
    let Some(length) = bytes.get(4..6) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if !(FIXED + SIGNATURE..=LONGEST).contains(&length) {
        return Err(Status::Malformed);
    }
    Ok(bytes.get(..length))
}

fn fields(whole: &[u8]) -> Option<Header<'_>> {
    let (signed, _) = whole.split_last_chunk::<SIGNATURE>()?;
    let mut rest = Rest(signed.get(6..)?);
    let [flags] = rest.take()?;
    let target_port = u16::from_be_bytes(rest.take()?);
    let nonce = u64::from_be_bytes(rest.take()?);
    let (client, asked) = (rest.address()?, rest.address()?);
    let (service, backend) = (rest.name()?, rest.name()?);
    let proxy_protocol = match flags & (PROXY_V1 | PROXY_V2) {
        0 => None,
        PROXY_V1 => Some(ProxyProtocol::V1),
        PROXY_V2 => Some(ProxyProtocol::V2),
        _ => return None,
    };
    if !rest.0.is_empty() || flags & !(AS_CLIENT | PROXY_V1 | PROXY_V2 | DATAGRAM) != 0 || target_port == 0 {
        return None;
    }
    Some(Header {
        service,
        backend,
        target_port,
        client,
        asked,
        as_client: flags & AS_CLIENT != 0,
        proxy_protocol,
        nonce,
        is_datagram: flags & DATAGRAM != 0,
    })
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.take()? {
            [4] => IpAddr::from(self.take::<4>()?),
            // One that is an IPv4 address is written as such: there is one way to say a thing.
            [6] => Some(IpAddr::from(self.take::<16>()?)).filter(|ip| ip.to_canonical() == *ip)?,
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.take()?)))
    }

    fn name(&mut self) -> Option<&'a str> {
        let [length] = self.take()?;
        let (name, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        std::str::from_utf8(name).ok()
    }
}

/// The answer to a header, one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The backend is connected: what follows is its own.
    Ok,
    Refused,
    Timeout,
    Unreachable,
    /// No such service, no such backend, or not one of this node.
    NoBackend,
    Limit,
    /// The header is of a version that this node does not know.
    Version,
    /// Signed with another token.
    Denied,
    Malformed,
}

impl Status {
    pub(crate) const ALL: [Self; 9] = [
        Self::Ok,
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::NoBackend,
        Self::Limit,
        Self::Version,
        Self::Denied,
        Self::Malformed,
    ];

    pub(crate) fn byte(self) -> u8 {
        self as u8
    }

    /// What a newer node says and we do not know is a failure whose reason we do not know.
    pub(crate) fn from_byte(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).copied().unwrap_or(Self::Unreachable)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused => Self::Refused,
            Failure::Timeout => Self::Timeout,
            Failure::Unreachable | Failure::Reset | Failure::Loop => Self::Unreachable,
            Failure::NoBackend => Self::NoBackend,
            Failure::Limit => Self::Limit,
        }
    }
}

/// A header with `body` in the place of its fields, signed.
#[cfg(any(test, fuzzing))]
pub(crate) fn signed(key: &Key, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(LONGEST - 6 - SIGNATURE)];
    let length = (6 + body.len() + SIGNATURE) as u16;
    let mut header = [&MAGIC[..], &[VERSION], &length.to_be_bytes(), body].concat();
    let signature = key.sign(&header);
    header.extend(signature);
    header
}

/// What is between length and signature of a whole header: what [`signed`] makes the same header of.
#[cfg(any(test, fuzzing))]
pub(crate) fn body(whole: &[u8]) -> &[u8] {
    &whole[6..whole.len() - SIGNATURE]
}

#[cfg(test)]
mod tests;
