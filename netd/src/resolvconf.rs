//! The host's resolver configuration, read the way the C library reads it: what cannot be understood is passed over,
//! because the host's programs get by with the same file.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use crate::model::DnsOptions;

/// As many as the C library looks at (MAXNS).
const SERVERS: usize = 3;
/// A file of another kind must not become pages of search domains.
const WORDS: usize = 64;
const PORT: u16 = 53;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
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

impl ResolvConf {
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            // A comment sign begins a comment at the start of a line only; behind a value the library ignores the
            // rest of the line anyway, but for lists.
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

    /// With what the user gave for one sandbox in its place: servers, search domains and options each as a whole. A
    /// search domain `.` stands for none.
    pub(crate) fn overridden(&self, given: &DnsOptions) -> Self {
        let servers = given.servers.iter().map(|&address| Server { address, scope: None }).collect();
        let mut search = either(&given.search, &self.search);
        search.retain(|domain| domain != ".");
        Self {
            servers: either_owned(servers, &self.servers),
            search,
            options: either(&given.options, &self.options),
        }
    }

    /// The file's lines.
    pub(crate) fn render(&self) -> String {
        let mut lines: Vec<String> =
            self.servers.iter().map(|server| format!("nameserver {}", server.text())).collect();
        if !self.search.is_empty() {
            lines.push(format!("search {}", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            lines.push(format!("options {}", self.options.join(" ")));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
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

    /// Where to ask; `index` knows the numbers of devices. None for a device that is not there.
    pub(crate) fn socket_address(&self, index: impl FnOnce(&str) -> Option<u32>) -> Option<SocketAddr> {
        match (self.address, &self.scope) {
            (IpAddr::V6(address), Some(scope)) => {
                let scope = scope.parse().ok().or_else(|| index(scope))?;
                Some(SocketAddrV6::new(address, PORT, 0, scope).into())
            }
            (address, _) => Some(SocketAddr::new(address, PORT)),
        }
    }

    /// Whether the address means the same server in another network namespace.
    pub(crate) fn is_reachable_from_elsewhere(&self) -> bool {
        let link_local = matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local());
        !self.address.is_loopback() && !self.address.is_unspecified() && !link_local
    }

    pub(crate) fn text(&self) -> String {
        match &self.scope {
            Some(scope) => format!("{}%{scope}", self.address),
            None => self.address.to_string(),
        }
    }
}

fn either(given: &[String], host: &[String]) -> Vec<String> {
    if given.is_empty() { host.to_vec() } else { given.to_vec() }
}

fn either_owned(given: Vec<Server>, host: &[Server]) -> Vec<Server> {
    if given.is_empty() { host.to_vec() } else { given }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read_as_the_c_library_reads_it() {
        let text = "# a comment\n; another\n\tnameserver\t127.0.0.53 trailing\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1 # with a comment\ndomain first.example\nsearch a.example b.example # c\n\
                    options edns0 trust-ad\noptions timeout:1\nsortlist 1.2.3.4\n";
        let found = ResolvConf::parse(text);
        let servers: Vec<String> = found.servers.iter().map(Server::text).collect();
        assert_eq!(servers, ["127.0.0.53", "fe80::1%eth0", "2001:db8::1"]);
        assert_eq!(found.search, ["a.example", "b.example"]);
        assert_eq!(found.options, ["edns0", "trust-ad", "timeout:1"]);
    }

    #[test]
    fn the_last_of_domain_and_search_wins() {
        assert_eq!(ResolvConf::parse("search a b\ndomain c d\n").search, ["c"]);
        assert_eq!(ResolvConf::parse("search a b\nsearch\n").search, Vec::<String>::new());
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        let text = "nameserver\nnameserver not.an.address\nnameserver 1.2.3.4.5\nNAMESERVER 1.1.1.1\n\0\nnameserver \
                    9.9.9.9\nnameserver fe80::2%\n";
        let servers: Vec<String> = ResolvConf::parse(text).servers.iter().map(Server::text).collect();
        assert_eq!(servers, ["9.9.9.9", "fe80::2"]);
    }

    #[test]
    fn no_more_servers_than_the_c_library_asks() {
        let text: String = (1..9).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        assert_eq!(ResolvConf::parse(&text).servers.len(), 3);
    }

    #[test]
    fn a_scope_is_a_device_or_its_index() {
        let server = |text: &str| ResolvConf::parse(&format!("nameserver {text}")).servers.remove(0);
        let index = |name: &str| (name == "eth0").then_some(7);
        let address = |text: &str| server(text).socket_address(index).map(|address| address.to_string());
        assert_eq!(address("fe80::1%eth0").as_deref(), Some("[fe80::1%7]:53"));
        assert_eq!(address("fe80::1%3").as_deref(), Some("[fe80::1%3]:53"));
        assert_eq!(address("fe80::1%gone"), None);
        assert_eq!(address("10.0.0.1").as_deref(), Some("10.0.0.1:53"));
    }

    #[test]
    fn what_the_user_gave_replaces_the_hosts_part_by_part() {
        let host = ResolvConf::parse("nameserver 10.0.0.1\nsearch a\noptions rotate\n");
        let given = |servers: &[&str], search: &[&str], options: &[&str]| DnsOptions {
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            search: search.iter().map(ToString::to_string).collect(),
            options: options.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(host.overridden(&given(&[], &[], &[])), host);
        assert_eq!(
            host.overridden(&given(&["9.9.9.9"], &["b"], &["ndots:2"])).render(),
            "nameserver 9.9.9.9\nsearch b\noptions ndots:2\n"
        );
        assert_eq!(
            host.overridden(&given(&[], &["."], &[])).render(),
            "nameserver 10.0.0.1\noptions rotate\n"
        );
    }
}
