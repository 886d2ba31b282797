//! The driver options of a network, from the strings of `-o KEY=VALUE`. Docker's long names are understood too.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::error::ApiError;
use crate::value::LinkName;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeOptions {
    /// `mtu`
    pub mtu: Option<u32>,
    /// `icc`: whether sandboxes of this network reach each other.
    pub icc: Option<bool>,
    /// `masquerade`: whether what leaves takes the host's address.
    pub masquerade: Option<bool>,
    /// `isolate`: whether sandboxes of other networks are kept out.
    pub isolate: Option<bool>,
    /// `bridge-name`
    pub bridge_name: Option<LinkName>,
    /// `big-tcp`: whether packets may be larger than 64 KiB within the host.
    pub big_tcp: Option<Switch>,
}

/// `on`, `off`, or `auto`: what is best as things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    On,
    Off,
    Auto,
}

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => Err("use on, off or auto"),
        }
    }
}

impl TryFrom<&BTreeMap<String, String>> for BridgeOptions {
    type Error = ApiError;

    fn try_from(given: &BTreeMap<String, String>) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for (key, value) in given {
            match key.as_str() {
                "mtu" | "com.docker.network.driver.mtu" => options.mtu = Some(mtu(key, value)?),
                "icc" | "com.docker.network.bridge.enable_icc" => options.icc = Some(parse(key, value)?),
                "masquerade" | "com.docker.network.bridge.enable_ip_masquerade" => {
                    options.masquerade = Some(parse(key, value)?);
                }
                "isolate" => options.isolate = Some(parse(key, value)?),
                "big-tcp" => options.big_tcp = Some(parse(key, value)?),
                "bridge-name" | "com.docker.network.bridge.name" => {
                    options.bridge_name = Some(parse(key, value)?);
                }
                _ => {
                    return Err(ApiError::invalid(format!("the driver bridge has no option {key:?}"))
                        .at(format!("Options.{key}"))
                        .remedy("use mtu, icc, masquerade, isolate, big-tcp or bridge-name"));
                }
            }
        }
        Ok(options)
    }
}

/// Of a network that all nodes of a cluster have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// `mtu`
    pub mtu: Option<u32>,
    /// `icc`: whether sandboxes of this network reach each other.
    pub icc: Option<bool>,
    /// `masquerade`: whether what leaves takes the host's address.
    pub masquerade: Option<bool>,
    /// `isolate`: whether sandboxes of other networks are kept out.
    pub isolate: Option<bool>,
    /// `vni`: what tells its packets from those of other networks.
    pub vni: Option<u32>,
}

/// What a VXLAN header has room for.
const LAST_VNI: u32 = (1 << 24) - 1;

impl TryFrom<&BTreeMap<String, String>> for OverlayOptions {
    type Error = ApiError;

    fn try_from(given: &BTreeMap<String, String>) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for (key, value) in given {
            match key.as_str() {
                "mtu" | "com.docker.network.driver.mtu" => options.mtu = Some(mtu(key, value)?),
                "icc" => options.icc = Some(parse(key, value)?),
                "masquerade" => options.masquerade = Some(parse(key, value)?),
                "isolate" => options.isolate = Some(parse(key, value)?),
                "vni" | "com.docker.network.driver.overlay.vxlanid_list" => {
                    options.vni = Some(vni(key, value)?);
                }
                "encrypted" if value == "false" => {}
                "encrypted" => {
                    return Err(ApiError::invalid("traffic between nodes is not encrypted by this netd")
                        .at(format!("Options.{key}"))
                        .remedy("leave it out, and join the nodes by WireGuard or IPsec: give their addresses there as --advertise-addr"));
                }
                _ => {
                    return Err(ApiError::invalid(format!("the driver overlay has no option {key:?}"))
                        .at(format!("Options.{key}"))
                        .remedy("use mtu, icc, masquerade, isolate or vni"));
                }
            }
        }
        Ok(options)
    }
}

fn vni(key: &str, value: &str) -> Result<u32, ApiError> {
    let vni = parse(key, value)?;
    if (1..=LAST_VNI).contains(&vni) {
        return Ok(vni);
    }
    Err(ApiError::invalid(format!("a network identifier of {vni} does not exist"))
        .at(format!("Options.{key}"))
        .remedy(format!("use 1 to {LAST_VNI}, or leave it out")))
}

/// IPv6 wants 1280; below that the kernel takes IPv6 off the device. An IPv4-only network may go to 68.
fn mtu(key: &str, value: &str) -> Result<u32, ApiError> {
    let mtu = parse(key, value)?;
    if (68..=65535).contains(&mtu) {
        return Ok(mtu);
    }
    Err(ApiError::invalid(format!("an MTU of {mtu} does not exist"))
        .at(format!("Options.{key}"))
        .remedy("use 68 to 65535, at least 1280 with IPv6"))
}

fn parse<T: FromStr<Err: std::fmt::Display>>(key: &str, value: &str) -> Result<T, ApiError> {
    value.parse().map_err(|error| {
        ApiError::invalid(format!("{value:?} is no value for it: {error}")).at(format!("Options.{key}"))
    })
}
