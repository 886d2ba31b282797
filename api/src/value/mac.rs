//! A MAC address that a network device may have.

use std::fmt;
use std::str::FromStr;

use super::{Invalid, string_form};

/// Six octets, not all zero, not a group address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    pub fn new(octets: [u8; 6]) -> Result<Self, Invalid> {
        let mac = Self(octets);
        let bad = |cause| {
            let remedy = "use a unicast address, as 02:00:00:00:00:01";
            Invalid::new("MAC address", &mac.to_string(), cause, remedy)
        };
        match octets {
            [0, 0, 0, 0, 0, 0] => Err(bad("it is all zero")),
            [first, ..] if first & 1 == 1 => Err(bad("it is a group address")),
            _ => Ok(mac),
        }
    }

    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            let remedy = "write six pairs of hex digits, as 02:42:ac:11:00:02";
            Invalid::new("MAC address", text, "it does not have that form", remedy)
        };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part =
                parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(bad)?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Self::new(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

string_form!(Mac, "Six pairs of hex digits, a unicast address: 02:42:ac:11:00:02");
