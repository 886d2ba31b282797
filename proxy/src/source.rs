//! Under whose address a backend is connected to. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::table::Source;

/// Whether the client's address is wanted, and one that answers can be sent to.
pub(crate) fn is_clients(source: &Source, client: SocketAddr) -> bool {
    match source {
        Source::Own => false,
        Source::Client { except } => {
            is_sent_to(client.ip())
                && !except.iter().any(|network| network.contains(client.ip().to_canonical()))
        }
    }
}

/// Whether somebody else can send to this address of a client, and does not mean himself.
fn is_sent_to(client: IpAddr) -> bool {
    match client.to_canonical() {
        IpAddr::V4(client) => {
            !client.is_loopback()
                && !client.is_unspecified()
                && !client.is_multicast()
                && !client.is_broadcast()
        }
        // A link-local address means somebody else on every link.
        IpAddr::V6(client) => {
            !client.is_loopback()
                && !client.is_unspecified()
                && !client.is_multicast()
                && !client.is_unicast_link_local()
        }
    }
}

/// The client as a source for packets to `backend`; none when that is of the other family.
pub(crate) fn towards(client: SocketAddr, backend: SocketAddr) -> Option<SocketAddr> {
    let ip = client.ip().to_canonical();
    (ip.is_ipv4() == backend.is_ipv4() && is_sent_to(ip)).then(|| SocketAddr::new(ip, client.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(client: &str, except: &[&str]) -> bool {
        let except = except.iter().map(|network| network.parse().unwrap()).collect();
        is_clients(&Source::Client { except }, client.parse().unwrap())
    }

    #[test]
    fn a_client_elsewhere_is_seen_and_a_neighbour_or_the_host_is_not() {
        assert!(of("192.0.2.1:5", &[]) && of("[2001:db8::1]:5", &["10.0.0.0/8"]));
        assert!(!of("10.1.0.2:5", &["10.1.0.0/16"]) && !of("[::ffff:10.1.0.2]:5", &["10.1.0.0/16"]));
        for host in
            ["127.0.0.1:5", "[::1]:5", "[::ffff:127.0.0.1]:5", "[fe80::1]:5", "0.0.0.0:5", "224.0.0.1:5"]
        {
            assert!(!of(host, &[]), "{host}");
        }
        assert!(!is_clients(&Source::Own, "192.0.2.1:5".parse().unwrap()));
    }

    #[test]
    fn a_mapped_client_is_an_ipv4_client_and_the_other_family_has_none() {
        let (v4, v6) = ("10.0.0.1:80".parse().unwrap(), "[fd00::1]:80".parse().unwrap());
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:5".parse().unwrap();
        assert_eq!(towards(mapped, v4), Some("192.0.2.1:5".parse().unwrap()));
        assert_eq!(towards(mapped, v6), None);
        assert_eq!(towards("[2001:db8::1]:5".parse().unwrap(), v4), None);
    }
}
