//! PROXY headers as a server reads them, version 1 (a line of text) and 2 (binary), written from the protocol's
//! description and not from netd's own writer.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::load::wire::{Told, invalid};

/// Reads a header and not a byte more.
pub fn read(from: &mut impl Read) -> io::Result<Told> {
    let mut start = [0; 12];
    from.read_exact(&mut start)?;
    if start == SIGNATURE { binary(from) } else { text(&start, from) }
}

fn text(start: &[u8], from: &mut impl Read) -> io::Result<Told> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        line.push(byte[0]);
        // What the protocol allows at most.
        if line.len() > 107 {
            return Err(invalid(format!("a long first line: {:?}", String::from_utf8_lossy(&line))));
        }
    }
    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
    let wrong = || invalid(format!("no PROXY line: {line:?}"));
    let words: Vec<_> = line.split(' ').collect();
    let addresses = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4" | "TCP6", from, to, from_port, to_port] => {
            let at = |address: &str, port: &str| -> Option<SocketAddr> {
                Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
            };
            Some((at(from, from_port).ok_or_else(wrong)?, at(to, to_port).ok_or_else(wrong)?))
        }
        _ => return Err(wrong()),
    };
    Ok(Told { version: 1, addresses })
}

fn binary(from: &mut impl Read) -> io::Result<Told> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    from.read_exact(&mut body)?;
    let addresses = match (head[0], head[1] >> 4) {
        // LOCAL: the sender's own connection, as its health checks are.
        (0x20, _) => None,
        (0x21, 1) if body.len() >= 12 => {
            let octets = |at: usize| -> IpAddr {
                Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]).into()
            };
            Some(ports(&body, 8, octets(0), octets(4)))
        }
        (0x21, 2) if body.len() >= 36 => {
            let octets = |at: usize| -> IpAddr {
                Ipv6Addr::from(<[u8; 16]>::try_from(&body[at..at + 16]).unwrap_or_default()).into()
            };
            Some(ports(&body, 32, octets(0), octets(16)))
        }
        _ => return Err(invalid(format!("no PROXY header of version 2: {head:?} {body:?}"))),
    };
    Ok(Told { version: 2, addresses })
}

fn ports(body: &[u8], at: usize, from: IpAddr, to: IpAddr) -> (SocketAddr, SocketAddr) {
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    (SocketAddr::new(from, port(at)), SocketAddr::new(to, port(at + 2)))
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_both_versions_are_read_to_their_end() {
        let wanted = Some((([192, 0, 2, 1], 258).into(), ([192, 0, 2, 2], 80).into()));
        let mut line: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 258 80\r\nrest";
        assert_eq!(read(&mut line).unwrap(), Told { version: 1, addresses: wanted });
        assert_eq!(line, b"rest");
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 0, 80]);
        bytes.extend(b"rest");
        let mut from = bytes.as_slice();
        assert_eq!(read(&mut from).unwrap(), Told { version: 2, addresses: wanted });
        assert_eq!(from, b"rest");
        assert!(read(&mut b"GET / HTTP/1.1\r\n\r\n".as_slice()).is_err());
    }
}
