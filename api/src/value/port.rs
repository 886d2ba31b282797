//! Ports: `--publish` and `--expose` in all the forms Docker has.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{Invalid, string_form};

/// `[hostIP:][hostPort[-end]]:containerPort[-end][/tcp|udp]`, or `containerPort` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortSpec {
    host_address: Option<IpAddr>,
    host_ports: Option<PortRange>,
    container_ports: PortRange,
    protocol: Protocol,
}

/// `PORT[-END][/PROTO]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExposeSpec {
    pub ports: PortRange,
    pub protocol: Protocol,
}

/// One port or more, from 1 to 65535, the first not after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// How the host's port is made to lead into the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PublishBy {
    /// A socket on the port itself: whoever has the port already is in the way.
    #[default]
    Bind,
    /// What arrives for the port is led to a socket of netd's: one that a runtime holds on the port as a reservation,
    /// before or after, is passed by.
    Steer,
}

const WHAT: &str = "published port";
const FORM: &str =
    "write [hostIP:][hostPort[-end]:]containerPort[-end][/tcp|udp], an IPv6 address in brackets";

impl PortSpec {
    /// Without host ports, free ones are taken. Host ports are as many as container ports, or for a single container
    /// port they are the ones to choose from.
    pub fn new(
        host_address: Option<IpAddr>,
        host_ports: Option<PortRange>,
        container_ports: PortRange,
        protocol: Protocol,
    ) -> Result<Self, Invalid> {
        let spec = Self { host_address, host_ports, container_ports, protocol };
        if matches!(host_address, Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some()) {
            let cause = "the host address is an IPv4 address in IPv6 dress";
            return Err(Invalid::new(WHAT, &spec.to_string(), cause, "write the IPv4 address"));
        }
        match host_ports {
            Some(host) if container_ports.count() > 1 && host.count() != container_ports.count() => {
                let cause = format!(
                    "{} host ports cannot lead to {} container ports",
                    host.count(),
                    container_ports.count()
                );
                let remedy = "make both ranges equally long, or name one container port";
                Err(Invalid::new(WHAT, &spec.to_string(), cause, remedy))
            }
            _ => Ok(spec),
        }
    }

    /// `None`: all addresses of both families.
    #[must_use]
    pub const fn host_address(&self) -> Option<IpAddr> {
        self.host_address
    }

    /// `None`: the daemon chooses.
    #[must_use]
    pub const fn host_ports(&self) -> Option<PortRange> {
        self.host_ports
    }

    #[must_use]
    pub const fn container_ports(&self) -> PortRange {
        self.container_ports
    }

    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The first free one of the host ports is wanted, not all of them.
    #[must_use]
    pub fn takes_first_free(&self) -> bool {
        self.container_ports.count() == 1 && self.host_ports.is_some_and(|host| host.count() > 1)
    }
}

impl PortRange {
    pub fn new(first: u16, last: u16) -> Result<Self, Invalid> {
        let shown = || format!("{first}-{last}");
        if first == 0 {
            return Err(Invalid::new("port range", &shown(), "there is no port 0", "use 1 to 65535"));
        }
        if first > last {
            let remedy = format!("write {last}-{first}");
            return Err(Invalid::new("port range", &shown(), "the end is before the beginning", remedy));
        }
        Ok(Self { first, last })
    }

    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports it has: 1 to 65535.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.last - self.first + 1
    }

    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl Protocol {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for PortSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: &str| Invalid::new(WHAT, text, cause, FORM);
        let (rest, protocol) = split_protocol(text)?;
        let (host_address, rest) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or_else(|| bad("']' is missing"))?;
                let address: Ipv6Addr =
                    address.parse().map_err(|_| bad("there is no IPv6 address in the brackets"))?;
                let rest = rest.strip_prefix(':').ok_or_else(|| bad("no ':' follows the address"))?;
                (Some(IpAddr::V6(address)), rest)
            }
            None if rest.matches(':').count() == 2 => {
                let (address, rest) = rest.split_once(':').unwrap_or_default();
                let parse = || address.parse::<Ipv4Addr>().map(IpAddr::V4);
                let parsed = (!address.is_empty()).then(parse).transpose();
                (parsed.map_err(|_| bad("the first part is not an IPv4 address"))?, rest)
            }
            None => (None, rest),
        };
        let (host, container) = match rest.split_once(':') {
            Some((_, container)) if container.contains(':') => return Err(bad("it has too many ':'")),
            Some((host, container)) => (host, container),
            None if host_address.is_some() => return Err(bad("the container port is missing")),
            None => ("", rest),
        };
        if container.is_empty() {
            return Err(bad("the container port is missing"));
        }
        let range =
            |ports: &str| ports.parse::<PortRange>().map_err(|e| Invalid::new(WHAT, text, e.cause, e.remedy));
        let host_ports = (!host.is_empty()).then(|| range(host)).transpose()?;
        Self::new(host_address, host_ports, range(container)?, protocol)
            .map_err(|e| Invalid::new(WHAT, text, e.cause, e.remedy))
    }
}

impl FromStr for ExposeSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (ports, protocol) = split_protocol(text)?;
        Ok(Self { ports: ports.parse()?, protocol })
    }
}

impl FromStr for PortRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let port = |digits: &str| {
            let number =
                digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
            number.filter(|port| *port != 0).ok_or_else(|| {
                Invalid::new("port", text, format!("{digits:?} is not a port"), "use 1 to 65535")
            })
        };
        match text.split_once('-') {
            Some((first, last)) => Self::new(port(first)?, port(last)?),
            None => port(text).and_then(|port| Self::new(port, port)),
        }
    }
}

impl PublishBy {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Steer => "steer",
        }
    }

    /// Whether it is what a request means that does not say.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for PublishBy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "bind" => Ok(Self::Bind),
            "steer" => Ok(Self::Steer),
            _ => Err(Invalid::new("way to publish", text, "there is no such way", "use bind or steer")),
        }
    }
}

impl fmt::Display for PublishBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.eq_ignore_ascii_case("tcp") {
            Ok(Self::Tcp)
        } else if text.eq_ignore_ascii_case("udp") {
            Ok(Self::Udp)
        } else {
            Err(Invalid::new("protocol", text, "it is not served", "use tcp or udp"))
        }
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_address {
            Some(IpAddr::V4(v4)) => write!(f, "{v4}:")?,
            Some(IpAddr::V6(v6)) => write!(f, "[{v6}]:")?,
            None => {}
        }
        match self.host_ports {
            Some(ports) => write!(f, "{ports}:")?,
            None if self.host_address.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}/{}", self.container_ports, self.protocol)
    }
}

impl fmt::Display for ExposeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ports, self.protocol)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => self.first.fmt(f),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

string_form!(PortSpec, "[hostIP:][hostPort[-end]:]containerPort[-end][/tcp|udp]");
string_form!(ExposeSpec, "PORT[-END][/tcp|udp]");
string_form!(Protocol, "tcp or udp");
string_form!(PublishBy, "bind or steer");

fn split_protocol(text: &str) -> Result<(&str, Protocol), Invalid> {
    match text.split_once('/') {
        Some((ports, protocol)) => Ok((ports, protocol.parse()?)),
        None => Ok((text, Protocol::Tcp)),
    }
}
