//! That what is written is read, and nothing else is.

use proptest::prelude::*;

use super::*;
use crate::hop::hostile;

fn key() -> Key {
    Key::new(&Token([7; 32]))
}

fn sample() -> Header<'static> {
    Header {
        service: "service/0123",
        backend: "endpoint",
        target_port: 80,
        client: "192.0.2.7:51234".parse().unwrap(),
        asked: "[2001:db8::1]:8080".parse().unwrap(),
        as_client: true,
        proxy_protocol: Some(ProxyProtocol::V2),
        nonce: 9,
        is_datagram: false,
    }
}

fn written(header: &Header<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(header.write(&key(), &mut bytes));
    bytes
}

#[test]
fn the_layout_is_what_older_nodes_read() {
    let bytes = written(&sample());
    assert_eq!(bytes[..6], [b'n', b'd', b'h', 1, 0, 81]);
    assert_eq!(bytes[6..17], [5, 0, 80, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(bytes[17..24], [4, 192, 0, 2, 7, 200, 34]);
    assert_eq!(bytes[24], 6);
    assert_eq!(bytes[43..56], *b"\x0cservice/0123");
    assert_eq!((bytes[56], bytes.len()), (8, 81));
}

#[test]
fn a_newer_version_is_told_from_nonsense_and_from_another_cluster() {
    let mut newer = written(&sample());
    newer[3] = 2;
    assert_eq!(read(&key(), &newer[..4]), Heard::Wrong(Status::Version));
    assert_eq!(read(&key(), b"GET / HTTP/1.1\r\n"), Heard::Wrong(Status::Malformed));
    let other = Key::new(&Token([8; 32]));
    assert_eq!(read(&other, &written(&sample())), Heard::Wrong(Status::Denied));
    assert_eq!(read(&key(), b""), Heard::Part);
}

#[test]
fn the_longest_header_is_no_longer_than_that() {
    let name = "x".repeat(255);
    let v6 = "[2001:db8::1]:8080".parse().unwrap();
    let longest = Header { service: &name, backend: &name, client: v6, asked: v6, ..sample() };
    assert_eq!(written(&longest).len(), LONGEST);
    let name = "x".repeat(256);
    let mut bytes = Vec::new();
    assert!(!Header { service: &name, ..sample() }.write(&key(), &mut bytes) && bytes.is_empty());
}

#[test]
fn what_fuzzing_begins_with_is_read() {
    for header in hostile::headers() {
        let is_read = |bytes: &[u8]| matches!(read(&key(), bytes), Heard::Header(..));
        assert!(is_read(&header) || is_read(&signed(&key(), &header)), "{header:?}");
    }
}

#[test]
fn a_status_is_a_byte_and_an_unknown_one_a_failure() {
    for status in Status::ALL {
        assert_eq!(Status::from_byte(status.byte()), status);
    }
    assert_eq!(Status::from_byte(200), Status::Unreachable);
}

prop_compose! {
    fn address()(v4: bool, bits: u128, port: u16) -> SocketAddr {
        let v6 = std::net::Ipv6Addr::from_bits(bits | 1 << 127);
        SocketAddr::new(if v4 { IpAddr::V4((bits as u32).into()) } else { v6.into() }, port)
    }
}

prop_compose! {
    fn any_header()(
        target_port in 1u16.., client in address(), asked in address(), as_client: bool, version in 0..3u8, nonce: u64,
        is_datagram: bool,
    ) -> Header<'static> {
        let proxy_protocol = [None, Some(ProxyProtocol::V1), Some(ProxyProtocol::V2)][usize::from(version)];
        Header { target_port, client, asked, as_client, proxy_protocol, nonce, is_datagram, ..sample() }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        header in any_header(), service in ".{0,60}", backend in ".{0,60}", behind: [u8; 3],
    ) {
        let header = Header { service: &service, backend: &backend, ..header };
        let bytes = written(&header);
        let whole = [&bytes[..], &behind].concat();
        prop_assert_eq!(read(&key(), &whole), Heard::Header(header, bytes.len()));
        for cut in 0..bytes.len() {
            prop_assert_eq!(read(&key(), &bytes[..cut]), Heard::Part);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed(at: prop::sample::Index, change in 1..=255u8) {
        let mut bytes = written(&sample());
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(!matches!(read(&key(), &bytes), Heard::Header(..)));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        hostile::header(&bytes);
    }
}
