//! From the address and port that a client asked for to what answers there, where many share one socket.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A listener on one address, be it of one port or of every port (0), goes before a listener on every address.
#[derive(Debug)]
pub(crate) struct Routes<T> {
    by_destination: HashMap<(IpAddr, u16), T>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { by_destination: HashMap::new() }
    }
}

impl<T> Routes<T> {
    pub(crate) fn put(&mut self, address: SocketAddr, to: T) {
        self.by_destination.insert((address.ip(), address.port()), to);
    }

    pub(crate) fn remove(&mut self, address: SocketAddr) {
        self.by_destination.remove(&(address.ip(), address.port()));
    }

    pub(crate) fn find(&self, ip: IpAddr, port: u16) -> Option<&T> {
        let every = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let ways = [(ip, port), (ip, 0), (every, port), (every, 0)];
        ways.iter().find_map(|way| self.by_destination.get(way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_itself_goes_before_every_address_of_its_family() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut routes = Routes::default();
        routes.put(address("0.0.0.0:80"), "v4");
        routes.put(address("[::]:80"), "v6");
        routes.put(address("10.0.0.1:80"), "one");
        routes.put(address("10.0.0.3:0"), "any port");
        let find = |routes: &Routes<&'static str>, text: &str| {
            let asked = address(text);
            routes.find(asked.ip(), asked.port()).copied()
        };
        assert_eq!(find(&routes, "10.0.0.1:80"), Some("one"));
        assert_eq!(find(&routes, "10.0.0.2:80"), Some("v4"));
        assert_eq!(find(&routes, "10.0.0.3:80"), Some("any port"));
        assert_eq!(find(&routes, "10.0.0.3:81"), Some("any port"));
        routes.put(address("10.0.0.3:81"), "one port");
        assert_eq!(find(&routes, "10.0.0.3:81"), Some("one port"));
        assert_eq!(find(&routes, "[fd00::1]:80"), Some("v6"));
        assert_eq!(find(&routes, "10.0.0.1:81"), None);
        routes.remove(address("10.0.0.1:80"));
        assert_eq!(find(&routes, "10.0.0.1:80"), Some("v4"));
        routes.put(address("10.0.0.1:0"), "every port");
        assert_eq!(find(&routes, "10.0.0.1:80"), Some("every port"), "the address is its own");
        assert_eq!(find(&routes, "10.0.0.1:81"), Some("every port"));
        assert_eq!(find(&routes, "10.0.0.2:81"), None);
    }
}
