//! A subnet in CIDR form.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use super::{Invalid, string_form};

/// `10.1.0.0/16`, `fd00:1::/64`: an address without host bits, and a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(IpNetwork);

impl Subnet {
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, Invalid> {
        let shown = || format!("{address}/{prefix}");
        let subnet = IpNetwork::new(address, prefix).map_err(|_| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let remedy = format!("use a prefix length of 1 to {longest}");
            Invalid::new("subnet", &shown(), "the prefix is too long", remedy)
        })?;
        if prefix == 0 {
            return Err(Invalid::new("subnet", &shown(), "it is the whole Internet", "use a longer prefix"));
        }
        if subnet.network() != address {
            let remedy = format!("write {}/{prefix}", subnet.network());
            return Err(Invalid::new("subnet", &shown(), "host bits are set", remedy));
        }
        Ok(Self(subnet))
    }
}

impl From<Subnet> for IpNetwork {
    fn from(subnet: Subnet) -> Self {
        subnet.0
    }
}

impl TryFrom<IpNetwork> for Subnet {
    type Error = Invalid;

    fn try_from(network: IpNetwork) -> Result<Self, Invalid> {
        Self::new(network.ip(), network.prefix())
    }
}

impl Deref for Subnet {
    type Target = IpNetwork;

    fn deref(&self) -> &IpNetwork {
        &self.0
    }
}

impl FromStr for Subnet {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: &str| Invalid::new("subnet", text, cause, "write ADDRESS/PREFIX, as 10.1.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(|| bad("it has no prefix length"))?;
        let address = address.parse().map_err(|_| bad("it does not begin with an IP address"))?;
        if prefix.is_empty() || prefix.bytes().any(|b| !b.is_ascii_digit()) {
            return Err(bad("the prefix length is not a number"));
        }
        Self::new(address, prefix.parse().map_err(|_| bad("the prefix is too long"))?)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

string_form!(Subnet, "An address without host bits and a prefix length: 10.1.0.0/16, fd00:1::/64");
