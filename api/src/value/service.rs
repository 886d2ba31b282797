//! What a service is made of, in the words of the command line: its name, ports, health check, affinity, members.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use super::{Invalid, Protocol, Reference, Span, string_form};

/// A DNS label: letters, digits, '-' and '_', a letter or digit first, at most 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// `[NAME=]PORT[:TARGET][/tcp|udp]`: a port of the service's address, and the port of a backend that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortSpec {
    /// For SRV records: `_NAME._tcp.SERVICE`.
    pub name: Option<PortName>,
    pub port: u16,
    pub target: u16,
    pub protocol: Protocol,
}

/// At most 15 letters, digits and '-', as RFC 6335 has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName(String);

/// `none`, `tcp[:PORT]` or `http://:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthSpec {
    None,
    Tcp { port: Option<u16> },
    Http { port: Option<u16>, path: String },
}

/// `none`, or how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainSpec {
    /// Until they end by themselves.
    None,
    Within(Span),
}

/// `none` or `client-ip[:SECONDS]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    None,
    ClientIp(Duration),
}

/// `IP:PORT[,weight=N]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    pub address: SocketAddr,
    pub weight: u16,
}

/// `SERVICE[,weight=N]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    pub service: Reference,
    pub weight: u16,
}

/// As long as Docker's and Kubernetes' users expect a client to stay.
const AFFINITY: Duration = Duration::from_secs(10_800);

impl FromStr for ServiceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let remedy = "use at most 63 letters, digits, '-' and '_', a letter or digit first";
        let bad = |cause: String| Invalid::new("service name", text, cause, remedy);
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match text.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(bad(format!("{c:?} may not be in it"))),
            None if text.is_empty() => Err(bad("it is empty".into())),
            None if text.len() > 63 => Err(bad(format!("it has {} characters", text.len()))),
            None if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) => {
                Err(bad("it does not begin with a letter or digit".into()))
            }
            None => Ok(Self(text.into())),
        }
    }
}

impl FromStr for PortName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let remedy = "use at most 15 letters, digits and '-', a letter or digit at both ends";
        let bad = |cause: &str| Invalid::new("port name", text, cause, remedy);
        if text.is_empty() || text.len() > 15 {
            return Err(bad("it is not 1 to 15 characters long"));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(bad("something else is in it"));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(bad("it begins or ends with '-'"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl FromStr for ServicePortSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const FORM: &str = "write [NAME=]PORT[:TARGET][/tcp|udp]";
        let bad = |cause: String| Invalid::new("service port", text, cause, FORM);
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) => (Some(name.parse()?), rest),
            None => (None, text),
        };
        let (ports, protocol) = match rest.split_once('/') {
            Some((ports, protocol)) => (ports, protocol.parse()?),
            None => (rest, Protocol::Tcp),
        };
        let (port, target) = ports.split_once(':').unwrap_or((ports, ports));
        let number =
            |digits: &str| port_number(digits).ok_or_else(|| bad(format!("{digits:?} is not a port")));
        Ok(Self { name, port: number(port)?, target: number(target)?, protocol })
    }
}

impl FromStr for HealthSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: String| {
            Invalid::new("health check", text, cause, "write none, tcp, tcp:PORT or http://:PORT/PATH")
        };
        let number =
            |digits: &str| port_number(digits).ok_or_else(|| bad(format!("{digits:?} is not a port")));
        if text == "none" {
            return Ok(Self::None);
        }
        if text == "tcp" {
            return Ok(Self::Tcp { port: None });
        }
        if let Some(port) = text.strip_prefix("tcp:") {
            return Ok(Self::Tcp { port: Some(number(port)?) });
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(bad("there is no such check".into()));
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port = match host.strip_prefix(':') {
            Some(port) => Some(number(port)?),
            None if host.is_empty() => None,
            None => return Err(bad("every backend is asked: name no host".into())),
        };
        let path = if path.is_empty() { "/" } else { path };
        if path.len() > 1024 || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("the path is not one word of at most 1024 characters".into()));
        }
        Ok(Self::Http { port, path: path.into() })
    }
}

impl FromStr for DrainSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::Within) }
    }
}

impl FromStr for Affinity {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad =
            |cause: &str| Invalid::new("affinity", text, cause, "write none, client-ip or client-ip:SECONDS");
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "client-ip" => Ok(Self::ClientIp(AFFINITY)),
            Some(("client-ip", seconds)) => match seconds.parse::<u32>() {
                Ok(seconds @ 1..=86_400) => Ok(Self::ClientIp(Duration::from_secs(seconds.into()))),
                _ => Err(bad("the seconds are not a number from 1 to 86400")),
            },
            _ => Err(bad("there is no such affinity")),
        }
    }
}

impl FromStr for BackendSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const FORM: &str = "write IP:PORT[,weight=N], an IPv6 address in brackets";
        let bad = |cause: &str| Invalid::new("backend", text, cause, FORM);
        let (address, weight) = weighted(text)?;
        let address: SocketAddr = address.parse().map_err(|_| bad("it is no address with a port"))?;
        let ip = address.ip();
        if address.port() == 0 {
            return Err(bad("there is no port 0"));
        }
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(bad("nobody can be connected to there"));
        }
        if matches!(ip, std::net::IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(bad("it is an IPv4 address in IPv6 dress"));
        }
        Ok(Self { address, weight })
    }
}

impl FromStr for MemberSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (service, weight) = weighted(text)?;
        Ok(Self { service: service.parse()?, weight })
    }
}

/// What stands before `,weight=N`, and N.
fn weighted(text: &str) -> Result<(&str, u16), Invalid> {
    let Some((first, rest)) = text.split_once(',') else { return Ok((text, 1)) };
    let Some(digits) = rest.strip_prefix("weight=") else {
        return Err(Invalid::new("weight", text, "what follows the ',' is not weight=N", "use 1 to 65535"));
    };
    match digits.parse() {
        Ok(weight @ 1..) => Ok((first, weight)),
        _ => Err(Invalid::new("weight", text, format!("{digits:?} is no weight"), "use 1 to 65535")),
    }
}

fn port_number(digits: &str) -> Option<u16> {
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten().filter(|port| *port != 0)
}

impl fmt::Display for ServicePortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        write!(f, "{}", self.port)?;
        if self.target != self.port {
            write!(f, ":{}", self.target)?;
        }
        write!(f, "/{}", self.protocol)
    }
}

impl fmt::Display for HealthSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tcp { port: None } => f.write_str("tcp"),
            Self::Tcp { port: Some(port) } => write!(f, "tcp:{port}"),
            Self::Http { port: None, path } => write!(f, "http://{path}"),
            Self::Http { port: Some(port), path } => write!(f, "http://:{port}{path}"),
        }
    }
}

impl fmt::Display for DrainSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Within(span) => span.fmt(f),
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::ClientIp(time) => write!(f, "client-ip:{}", time.as_secs()),
        }
    }
}

impl fmt::Display for BackendSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},weight={}", self.address, self.weight)
    }
}

impl fmt::Display for MemberSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},weight={}", self.service, self.weight)
    }
}

macro_rules! text {
    ($type:ident, $description:literal) => {
        impl Deref for $type {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        string_form!($type, $description);
    };
}

text!(ServiceName, "1 to 63 letters, digits, '-' and '_', a letter or digit first");
text!(PortName, "1 to 15 letters, digits and '-'");
string_form!(ServicePortSpec, "[NAME=]PORT[:TARGET][/tcp|udp]");
string_form!(HealthSpec, "none, tcp[:PORT] or http://:PORT/PATH");
string_form!(DrainSpec, "none, or a length of time, at most a day: 500ms, 10s, 1m30s");
string_form!(Affinity, "none or client-ip[:SECONDS]");
string_form!(BackendSpec, "IP:PORT[,weight=N]");
string_form!(MemberSpec, "SERVICE[,weight=N]");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_given_again() {
        for (text, shown) in
            [("80", "80/tcp"), ("http=80:8080", "http=80:8080/tcp"), ("dns=53/udp", "dns=53/udp")]
        {
            assert_eq!(text.parse::<ServicePortSpec>().unwrap().to_string(), shown);
            assert_eq!(shown.parse::<ServicePortSpec>(), text.parse());
        }
        for text in ["none", "tcp", "tcp:80", "http://:8080/health?x=1", "http:///"] {
            assert_eq!(text.parse::<HealthSpec>().unwrap().to_string(), text);
        }
        assert_eq!("client-ip".parse::<Affinity>().unwrap().to_string(), "client-ip:10800");
        assert_eq!(
            "[fd00::1]:80,weight=3".parse::<BackendSpec>().unwrap().to_string(),
            "[fd00::1]:80,weight=3"
        );
        assert_eq!("1m30s".parse::<Span>().unwrap().to_string(), "1m30s");
        for text in ["none", "30s"] {
            assert_eq!(text.parse::<DrainSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_refusal_shows_the_value_and_what_is_right() {
        let refused = [
            ("".parse::<ServiceName>().err(), "it is empty"),
            ("a.b".parse::<ServiceName>().err(), "'.' may not be in it"),
            ("-a".parse::<ServiceName>().err(), "begin with a letter"),
            ("n".repeat(64).parse::<ServiceName>().err(), "64 characters"),
            ("web=0".parse::<ServicePortSpec>().err(), "\"0\" is not a port"),
            ("80:x".parse::<ServicePortSpec>().err(), "\"x\" is not a port"),
            ("80/sctp".parse::<ServicePortSpec>().err(), "use tcp or udp"),
            ("=80".parse::<ServicePortSpec>().err(), "port name"),
            ("tcp:".parse::<HealthSpec>().err(), "is not a port"),
            ("http://web:80/".parse::<HealthSpec>().err(), "name no host"),
            ("icmp".parse::<HealthSpec>().err(), "no such check"),
            ("http://:80/a b".parse::<HealthSpec>().err(), "one word"),
            ("client-ip:0".parse::<Affinity>().err(), "1 to 86400"),
            ("cookie".parse::<Affinity>().err(), "no such affinity"),
            ("10.0.0.1".parse::<BackendSpec>().err(), "no address with a port"),
            ("10.0.0.1:0".parse::<BackendSpec>().err(), "no port 0"),
            ("0.0.0.0:80".parse::<BackendSpec>().err(), "nobody can be connected to"),
            ("10.0.0.1:80,weight=0".parse::<BackendSpec>().err(), "1 to 65535"),
            ("web,height=2".parse::<MemberSpec>().err(), "weight=N"),
            ("1 fortnight".parse::<Span>().err(), "500ms"),
            ("25h".parse::<Span>().err(), "longer than a day"),
        ];
        for (refusal, says) in refused {
            let said = refusal.expect(says).to_string();
            assert!(said.contains(says), "{said}: {says}");
        }
    }
}
