//! A port of the nodes that leads to a service, as it is asked for.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{self, Invalid, PortSpec, Protocol};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PublishSpec {
    pub target_port: u16,
    /// Without one, a free port from 49152 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_port: Option<u16>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    #[serde(default)]
    pub publish_mode: Mode,
    /// Only on this address; without one, on all of both families.
    #[serde(
        default,
        rename = "HostIP",
        deserialize_with = "value::option_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub host_ip: Option<IpAddr>,
    /// Endpoints get a PROXY protocol header with the client's address. TCP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "PublishMode")]
pub enum Mode {
    /// On every node, to any endpoint.
    #[default]
    Ingress,
    /// On nodes that have an endpoint, to that node's own.
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    V1,
    V2,
}

impl PublishSpec {
    /// Several for a range. Long: `published=8080,target=80,protocol=tcp,mode=ingress|host,proxy-protocol=v1|v2,ip=IP`;
    /// short: as a sandbox's.
    pub fn parse(text: &str) -> Result<Vec<Self>, Invalid> {
        if text.contains('=') { Self::long(text).map(|one| vec![one]) } else { Self::short(text) }
    }

    fn short(text: &str) -> Result<Vec<Self>, Invalid> {
        let spec: PortSpec = text.parse()?;
        if spec.takes_first_free() {
            let remedy = "name one published port, or as many as target ports";
            return Err(Invalid::new(WHAT, text, "a service's port is not chosen from a range", remedy));
        }
        let host = spec.host_ports().map(value::PortRange::first);
        let one = |step: u16| Self {
            target_port: spec.container_ports().first() + step,
            published_port: host.map(|first| first + step),
            protocol: spec.protocol(),
            publish_mode: Mode::Ingress,
            host_ip: spec.host_address(),
            proxy_protocol: None,
        };
        Ok((0..spec.container_ports().count()).map(one).collect())
    }

    fn long(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: String| Invalid::new(WHAT, text, cause, LONG);
        let mut spec = Self {
            target_port: 0,
            published_port: None,
            protocol: Protocol::Tcp,
            publish_mode: Mode::Ingress,
            host_ip: None,
            proxy_protocol: None,
        };
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| bad(format!("{part:?} has no '='")))?;
            let wrong = |what: &str| bad(format!("{value:?} is no {what}"));
            let port = || value.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("port"));
            match key {
                "published" => spec.published_port = Some(port()?),
                "target" => spec.target_port = port()?,
                "protocol" => spec.protocol = value.parse()?,
                "mode" => {
                    spec.publish_mode = match value {
                        "ingress" => Mode::Ingress,
                        "host" => Mode::Host,
                        _ => return Err(wrong("mode")),
                    };
                }
                "ip" => spec.host_ip = Some(value.parse().map_err(|_| wrong("IP address"))?),
                "proxy-protocol" => {
                    spec.proxy_protocol = match value {
                        "v1" => Some(ProxyProtocol::V1),
                        "v2" => Some(ProxyProtocol::V2),
                        _ => return Err(wrong("version of the PROXY protocol")),
                    };
                }
                _ => return Err(bad(format!("there is no key {key:?}"))),
            }
        }
        if spec.target_port == 0 { Err(bad("the target port is missing".into())) } else { Ok(spec) }
    }
}

fn is_default(protocol: &Protocol) -> bool {
    *protocol == Protocol::default()
}

const WHAT: &str = "published port";
const LONG: &str =
    "write published=PORT,target=PORT[,protocol=tcp|udp][,mode=ingress|host][,proxy-protocol=v1|v2][,ip=IP]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let short = PublishSpec::parse("8080:80").unwrap();
        assert_eq!(short, PublishSpec::parse("published=8080,target=80,protocol=tcp,mode=ingress").unwrap());
        let range = PublishSpec::parse("[::1]:8000-8002:80-82/udp").unwrap();
        let pairs: Vec<_> = range.iter().map(|spec| (spec.published_port, spec.target_port)).collect();
        assert_eq!(pairs, [(Some(8000), 80), (Some(8001), 81), (Some(8002), 82)]);
        let any = &PublishSpec::parse("target=80,mode=host,proxy-protocol=v2,ip=10.0.0.1").unwrap()[0];
        assert_eq!((any.published_port, any.publish_mode), (None, Mode::Host));
        assert_eq!((any.proxy_protocol, any.host_ip), (Some(ProxyProtocol::V2), "10.0.0.1".parse().ok()));
    }

    #[test]
    fn a_refusal_names_what_is_wrong() {
        for (text, says) in [
            ("8000-8010:80", "not chosen from a range"),
            ("published=8080", "target port is missing"),
            ("published=0,target=80", "\"0\" is no port"),
            ("target=80,colour=red", "no key \"colour\""),
            ("target=80,mode", "\"mode\" has no '='"),
            ("target=80,mode=global", "\"global\" is no mode"),
            ("target=80,proxy-protocol=v3", "\"v3\" is no version"),
            ("target=80,protocol=sctp", "tcp or udp"),
            ("target=80,ip=here", "\"here\" is no IP address"),
        ] {
            let said = PublishSpec::parse(text).unwrap_err().to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
