//! IP addresses in requests: `std`'s types, read so that a refusal shows the value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};

use super::{Alias, Invalid, string_form};

/// `NAME:IP` (or `NAME=IP`): a line of the sandbox's hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddHost {
    pub name: Alias,
    pub address: IpAddr,
}

impl FromStr for AddHost {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: &str| Invalid::new("host entry", text, cause, "write NAME:ADDRESS");
        let (name, address) = text.split_once([':', '=']).ok_or_else(|| bad("it has no ':'"))?;
        let plain = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = plain.parse().map_err(|_| bad("what follows the name is not an IP address"))?;
        Ok(Self { name: name.parse()?, address })
    }
}

impl fmt::Display for AddHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.address)
    }
}

string_form!(AddHost, "NAME:ADDRESS");

/// For `#[serde(deserialize_with)]`.
pub fn option_v4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Addr>, D::Error> {
    option(deserializer, "IPv4 address", "write it as 10.1.2.3")
}

/// For `#[serde(deserialize_with)]`.
pub fn option_v6<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv6Addr>, D::Error> {
    option(deserializer, "IPv6 address", "write it as fd00::1")
}

/// For `#[serde(deserialize_with)]`.
pub fn option_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    option(deserializer, "IP address", "write it as 10.1.2.3 or fd00::1")
}

/// For `#[serde(deserialize_with)]`.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let texts = Vec::<Cow<'de, str>>::deserialize(deserializer)?;
    texts.iter().map(|text| parse(text, "IP address", "write it as 10.1.2.3 or fd00::1")).collect()
}

/// For `#[serde(deserialize_with)]`.
pub fn map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, IpAddr>, D::Error> {
    let texts = BTreeMap::<String, Cow<'de, str>>::deserialize(deserializer)?;
    let entry = |(name, text): (String, Cow<'de, str>)| {
        Ok((name, parse(&text, "IP address", "write it as 10.1.2.3 or fd00::1")?))
    };
    texts.into_iter().map(entry).collect()
}

fn option<'de, D: Deserializer<'de>, T: FromStr>(
    deserializer: D,
    what: &'static str,
    remedy: &str,
) -> Result<Option<T>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
    text.map(|text| parse(&text, what, remedy)).transpose()
}

fn parse<T: FromStr, E: Error>(text: &str, what: &'static str, remedy: &str) -> Result<T, E> {
    text.parse().map_err(|_| E::custom(Invalid::new(what, text, "it is not one", remedy)))
}
