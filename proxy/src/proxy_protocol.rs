//! The header that tells a backend who its client is: PROXY protocol, version 1 (a line of text) and 2 (binary), as
//! the specification of HAProxy has it. Pure: addresses in, bytes out.

use std::net::{IpAddr, SocketAddr};

use crate::table::ProxyProtocol;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header for a TCP connection from `client` that reached us at `local`.
pub(crate) fn header(version: ProxyProtocol, client: SocketAddr, local: SocketAddr) -> Box<[u8]> {
    let (from, to) = same_family(client.ip(), local.ip());
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), local.port());
            line.into_bytes().into_boxed_slice()
        }
        ProxyProtocol::V2 => binary(from, to, client.port(), local.port()),
    }
}

fn binary(from: IpAddr, to: IpAddr, from_port: u16, to_port: u16) -> Box<[u8]> {
    let mut addresses = Vec::with_capacity(36);
    let family = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            addresses.extend(from.octets());
            addresses.extend(to.octets());
            TCP_OVER_IPV4
        }
        (from, to) => {
            for address in [from, to] {
                addresses.extend(in_v6(address).octets());
            }
            TCP_OVER_IPV6
        }
    };
    addresses.extend(from_port.to_be_bytes());
    addresses.extend(to_port.to_be_bytes());
    let mut header = Vec::with_capacity(16 + addresses.len());
    header.extend(SIGNATURE);
    header.extend([VERSION_AND_COMMAND, family]);
    // 12 or 36.
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header.into_boxed_slice()
}

/// One header has one family: IPv4 addresses that came mapped become plain, and an odd pair becomes IPv6.
fn same_family(client: IpAddr, local: IpAddr) -> (IpAddr, IpAddr) {
    match (client.to_canonical(), local.to_canonical()) {
        (from @ IpAddr::V4(_), to @ IpAddr::V4(_)) | (from @ IpAddr::V6(_), to @ IpAddr::V6(_)) => (from, to),
        (from, to) => (in_v6(from).into(), in_v6(to).into()),
    }
}

fn in_v6(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(version: ProxyProtocol, client: &str, local: &str) -> Vec<u8> {
        header(version, client.parse().unwrap(), local.parse().unwrap()).into_vec()
    }

    #[test]
    fn version_1_is_a_line() {
        let line = made(ProxyProtocol::V1, "192.0.2.7:51234", "198.51.100.1:443");
        assert_eq!(line, b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n");
        let line = made(ProxyProtocol::V1, "[2001:db8::7]:5", "[2001:db8::1]:6");
        assert_eq!(line, b"PROXY TCP6 2001:db8::7 2001:db8::1 5 6\r\n");
    }

    #[test]
    fn version_2_is_as_the_specification_lays_it_out() {
        let header = made(ProxyProtocol::V2, "192.0.2.7:256", "198.51.100.1:443");
        let mut expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c".to_vec();
        expected.extend([192, 0, 2, 7, 198, 51, 100, 1, 1, 0, 1, 187]);
        assert_eq!(header, expected);
        let header = made(ProxyProtocol::V2, "[2001:db8::7]:5", "[2001:db8::1]:6");
        assert_eq!((header.len(), header[13], header[15]), (52, 0x21, 36));
        assert_eq!(header[48..], [0, 5, 0, 6]);
    }

    #[test]
    fn a_mapped_client_is_an_ipv4_client() {
        let line = made(ProxyProtocol::V1, "[::ffff:192.0.2.7]:5", "[::ffff:192.0.2.1]:6");
        assert_eq!(line, b"PROXY TCP4 192.0.2.7 192.0.2.1 5 6\r\n");
    }
}
