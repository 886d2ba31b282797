//! Where etcd is and how to speak to it. Files are named, not read: a password or a certificate that is renewed is
//! found at the next connection.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A password or a certificate beyond this is some other file.
const FILE_LIMIT: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct EtcdSettings {
    /// At least one, in the order in which they were given.
    pub endpoints: Vec<HostPort>,
    /// Set: TLS to all of them.
    pub tls: Option<Tls>,
    pub login: Option<Login>,
    /// How long what is bound to this node outlives it. Whole seconds.
    pub lease: Duration,
    /// For one request, and for one attempt to connect.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Who has signed etcd's certificates, PEM.
    pub ca: PathBuf,
    pub identity: Option<Identity>,
}

/// What tells etcd who we are.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub user: String,
    pub password_file: PathBuf,
}

impl EtcdSettings {
    /// All endpoints, for a message.
    pub(crate) fn names(&self) -> String {
        self.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl Login {
    /// The first line of the file.
    pub(crate) fn password(&self) -> io::Result<String> {
        let bytes = read(&self.password_file)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))?;
        let password = text.lines().next().unwrap_or_default();
        match password {
            "" => Err(io::Error::new(ErrorKind::InvalidData, "its first line is empty")),
            password => Ok(password.to_owned()),
        }
    }
}

/// The whole of a small file.
pub(crate) fn read(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > FILE_LIMIT {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it has {length} bytes")));
    }
    fs::read(path)
}

impl HostPort {
    pub(crate) fn uri(&self, tls: bool) -> String {
        format!("{}://{self}", if tls { "https" } else { "http" })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{given:?} is not HOST:PORT (as 10.0.0.1:2379, etcd.example:2379 or [fd00::1]:2379)")]
pub(crate) struct NotHostPort {
    given: String,
}

impl FromStr for HostPort {
    type Err = NotHostPort;

    fn from_str(given: &str) -> Result<Self, NotHostPort> {
        let refused = || NotHostPort { given: given.to_owned() };
        let (host, port) = given.rsplit_once(':').ok_or_else(refused)?;
        let port: u16 = port.parse().map_err(|_| refused())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let sound = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_name(host),
        };
        if port == 0 || !sound {
            return Err(refused());
        }
        Ok(Self { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

/// A name of DNS, or an IPv4 address.
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["10.0.0.1:2379", "etcd-1.example:2379", "[fd00::1]:1", "localhost:65535", "a.:80"] {
            assert_eq!(text.parse::<HostPort>().expect("a place").to_string(), text);
        }
        assert_eq!("[::1]:2379".parse::<HostPort>().expect("a place").uri(true), "https://[::1]:2379");
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_was_given() {
        for text in [
            "", "a", ":1", "a:", "a:0", "a:65536", "::1:2379", "[::1]", "[a]:1", "a b:1", "u@h:1", "h/:1",
            "a..b:1",
        ] {
            let error = text.parse::<HostPort>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
