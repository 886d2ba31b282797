//! The host's resolver configuration, read the way the C library reads it: what cannot be understood is passed over,
//! because the host's programs get by with the same file.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// As many as the C library looks at (MAXNS).
const SERVERS: usize = 3;
/// A file of another kind must not become pages of search domains.
const WORDS: usize = 64;
const PORT: u16 = 53;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostConf {
    pub servers: Vec<Server>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub address: IpAddr,
    /// The device (or its index) that a link-local address is on: `fe80::1%eth0`.
    pub scope: Option<String>,
}

impl HostConf {
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().take_while(|word| !word.starts_with(['#', ';']));
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next().and_then(Server::parse)),
                // The last of these two wins.
                Some("domain") => found.search = words.take(1).map(Into::into).collect(),
                Some("search") => found.search = words.take(WORDS).map(Into::into).collect(),
                Some("options") => found.options.extend(words.take(WORDS).map(Into::into)),
                _ => {}
            }
        }
        found.servers.truncate(SERVERS);
        found.options.truncate(WORDS);
        found
    }

    /// Where to ask; `index` knows the numbers of devices. Servers on a device that is not there are left out.
    pub(crate) fn servers(&self, index: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
        self.servers.iter().filter_map(|server| server.socket_address(&index)).collect()
    }
}

impl Server {
    fn parse(word: &str) -> Option<Self> {
        let (address, scope) = match word.split_once('%') {
            Some((address, scope)) => (address, Some(scope.to_owned())),
            None => (word, None),
        };
        Some(Self { address: address.parse().ok()?, scope: scope.filter(|scope| !scope.is_empty()) })
    }

    fn socket_address(&self, index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
        match (self.address, &self.scope) {
            (IpAddr::V6(address), Some(scope)) => {
                let scope = scope.parse().ok().or_else(|| index(scope))?;
                Some(SocketAddrV6::new(address, PORT, 0, scope).into())
            }
            (address, _) => Some(SocketAddr::new(address, PORT)),
        }
    }

    /// Whether the address means the same server in another network namespace.
    pub(super) fn is_reachable_from_elsewhere(&self) -> bool {
        let link_local = matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local());
        !self.address.is_loopback() && !self.address.is_unspecified() && !link_local
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{}%{scope}", self.address),
            None => self.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(conf: &HostConf) -> Vec<String> {
        conf.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_hosts_file_is_read_as_the_c_library_reads_it() {
        let text = "# a comment\n; another\n\tnameserver\t127.0.0.53 trailing\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1 # with a comment\ndomain first.example\nsearch a.example b.example # c\n\
                    options edns0 trust-ad\noptions timeout:1\nsortlist 1.2.3.4\n";
        let found = HostConf::parse(text);
        assert_eq!(texts(&found), ["127.0.0.53", "fe80::1%eth0", "2001:db8::1"]);
        assert_eq!(found.search, ["a.example", "b.example"]);
        assert_eq!(found.options, ["edns0", "trust-ad", "timeout:1"]);
    }

    #[test]
    fn the_last_of_domain_and_search_wins() {
        assert_eq!(HostConf::parse("search a b\ndomain c d\n").search, ["c"]);
        assert_eq!(HostConf::parse("search a b\nsearch\n").search, Vec::<String>::new());
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        let text = "nameserver\nnameserver not.an.address\nnameserver 1.2.3.4.5\nNAMESERVER 1.1.1.1\n\0\nnameserver \
                    9.9.9.9\nnameserver fe80::2%\n";
        assert_eq!(texts(&HostConf::parse(text)), ["9.9.9.9", "fe80::2"]);
    }

    #[test]
    fn no_more_servers_than_the_c_library_asks() {
        let text: String = (1..9).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        assert_eq!(HostConf::parse(&text).servers.len(), 3);
    }

    #[test]
    fn a_scope_is_a_device_or_its_index() {
        let text = "nameserver fe80::1%eth0\nnameserver fe80::1%3\nnameserver fe80::1%gone\n";
        let servers = HostConf::parse(text).servers(|name| (name == "eth0").then_some(7));
        let texts: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["[fe80::1%7]:53", "[fe80::1%3]:53"]);
    }
}
