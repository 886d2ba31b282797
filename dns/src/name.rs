//! Names between the wire and the tables: a table knows `web.shop` in lower case, a message carries length-prefixed
//! labels in any case. Addresses in reverse names (`4.3.2.1.in-addr.arpa`) are read here too. Pure; no allocation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name a message can carry, its final root label included.
pub(crate) const MAX_WIRE_NAME: usize = 255;

const MAX_LABEL: usize = 63;

/// The name of a question as the tables hold it: lower case, dots between labels, none at the end.
#[derive(Clone, Debug)]
pub(crate) struct DottedName {
    bytes: [u8; MAX_WIRE_NAME],
    length: usize,
    /// A label held a dot or was not UTF-8: no table can have this name.
    foreign: bool,
}

/// Why a question's name cannot be read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Ends in the middle, or is longer than a name may be.
    Broken,
    /// Compressed, or a label type nobody uses.
    Unusual,
}

impl DottedName {
    const EMPTY: Self = Self { bytes: [0; MAX_WIRE_NAME], length: 0, foreign: false };

    /// Reads the name at the start of `wire` and says how many bytes it took.
    pub(crate) fn read(wire: &[u8]) -> Result<(Self, usize), Unreadable> {
        let mut name = Self::EMPTY;
        let mut at = 0;
        loop {
            let label = usize::from(*wire.get(at).ok_or(Unreadable::Broken)?);
            if label == 0 {
                return Ok((name, at + 1));
            }
            if label > MAX_LABEL {
                return Err(Unreadable::Unusual);
            }
            // One byte stays free for the root label.
            if at + 1 + label >= MAX_WIRE_NAME {
                return Err(Unreadable::Broken);
            }
            let bytes = wire.get(at + 1..at + 1 + label).ok_or(Unreadable::Broken)?;
            name.push_label(bytes);
            at += 1 + label;
        }
    }

    fn push_label(&mut self, label: &[u8]) {
        if self.length > 0 {
            self.bytes[self.length] = b'.';
            self.length += 1;
        }
        let place = &mut self.bytes[self.length..self.length + label.len()];
        for (to, from) in place.iter_mut().zip(label) {
            self.foreign |= *from == b'.';
            *to = from.to_ascii_lowercase();
        }
        self.length += label.len();
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    pub(crate) fn is_single_label(&self) -> bool {
        !self.foreign && self.length > 0 && !self.as_bytes().contains(&b'.')
    }

    /// Whether this is `parent` or a name below it.
    pub(crate) fn is_within(&self, parent: &[u8]) -> bool {
        !self.foreign && (self.as_bytes() == parent || before_suffix(self.as_bytes(), parent).is_some())
    }
}

/// `web` of `web.shop` and `shop`.
pub(crate) fn before_suffix<'a>(name: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let rest = name.strip_suffix(suffix)?.strip_suffix(b".")?;
    (!rest.is_empty()).then_some(rest)
}

/// A name in wire form.
#[derive(Clone, Debug)]
pub(crate) struct WireName {
    bytes: [u8; MAX_WIRE_NAME],
    length: usize,
}

impl WireName {
    pub(crate) const MOST: usize = MAX_WIRE_NAME;

    /// The parts one behind the other (`web` and `shop` make `web.shop`); none if that cannot be said on the wire.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut name = Self { bytes: [0; MAX_WIRE_NAME], length: 0 };
        for part in parts {
            for label in part.as_bytes().split(|byte| *byte == b'.') {
                name.push(label)?;
            }
        }
        // The root label: the array is zeroed and `push` leaves a byte for it.
        name.length += 1;
        Some(name)
    }

    fn push(&mut self, label: &[u8]) -> Option<()> {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=MAX_LABEL).contains(&usize::from(*length)))?;
        let end = self.length + 1 + label.len();
        if end >= MAX_WIRE_NAME {
            return None;
        }
        self.bytes[self.length] = length;
        self.bytes[self.length + 1..end].copy_from_slice(label);
        self.length = end;
        Some(())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(crate) fn dotted(&self) -> DottedName {
        let mut name = DottedName::EMPTY;
        let mut rest = self.as_bytes();
        while let Some((&label, behind)) = rest.split_first()
            && label > 0
        {
            let (label, behind) = behind.split_at(usize::from(label));
            name.push_label(label);
            rest = behind;
        }
        name
    }
}

/// The address whose PTR record `name` is.
pub(crate) fn reverse_address(name: &[u8]) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(b".in-addr.arpa") {
        reverse_v4(octets).map(IpAddr::V4)
    } else {
        name.strip_suffix(b".ip6.arpa").and_then(reverse_v6).map(IpAddr::V6)
    }
}

fn reverse_v4(octets: &[u8]) -> Option<Ipv4Addr> {
    let mut address = [0_u8; 4];
    let mut parts = octets.split(|byte| *byte == b'.');
    for octet in address.iter_mut().rev() {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 3 || (part.len() > 1 && part[0] == b'0') {
            return None;
        }
        *octet = std::str::from_utf8(part).ok()?.parse().ok()?;
    }
    parts.next().is_none().then_some(Ipv4Addr::from(address))
}

fn reverse_v6(nibbles: &[u8]) -> Option<Ipv6Addr> {
    if nibbles.len() != 63 {
        return None;
    }
    let mut address = 0_u128;
    for (index, pair) in nibbles.chunks(2).enumerate() {
        if pair.len() == 2 && pair[1] != b'.' {
            return None;
        }
        let nibble = char::from(pair[0]).to_digit(16)?;
        address |= u128::from(nibble) << (4 * index);
    }
    Some(Ipv6Addr::from(address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dotted(wire: &[u8]) -> Result<(Vec<u8>, usize), Unreadable> {
        DottedName::read(wire).map(|(name, used)| (name.as_bytes().to_vec(), used))
    }

    #[test]
    fn a_name_is_read_in_lower_case() {
        assert_eq!(dotted(b"\x03WeB\x04shop\x00rest"), Ok((b"web.shop".to_vec(), 10)));
        assert_eq!(dotted(b"\x00"), Ok((vec![], 1)));
    }

    #[test]
    fn a_dot_inside_a_label_is_not_a_separator() {
        let (name, _) = DottedName::read(b"\x03a.b\x00").expect("a legal name");
        assert!(name.is_foreign());
        assert!(!name.is_within(b"b"));
    }

    #[test]
    fn limits_are_those_of_the_protocol() {
        assert_eq!(dotted(b"\x03we"), Err(Unreadable::Broken));
        assert_eq!(dotted(b"\xc0\x0c"), Err(Unreadable::Unusual));
        let longest = [[63; 64], [63; 64], [63; 64]].concat();
        let name_of =
            |last: usize| [&longest[..], &vec![u8::try_from(last).unwrap(); last + 1], &[0]].concat();
        assert_eq!(dotted(&name_of(61)).unwrap().1, MAX_WIRE_NAME);
        assert_eq!(dotted(&name_of(62)), Err(Unreadable::Broken));
    }

    #[test]
    fn reverse_names_of_other_shapes_are_no_addresses() {
        for name in [
            "1.2.3.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "01.2.3.4.in-addr.arpa",
            "256.2.3.4.in-addr.arpa",
        ] {
            assert_eq!(reverse_address(name.as_bytes()), None, "{name}");
        }
        assert_eq!(reverse_address(b"b.a.ip6.arpa"), None);
    }

    proptest! {
        #[test]
        fn reverse_names_are_understood(address: IpAddr) {
            let name = match address {
                IpAddr::V4(v4) => {
                    let [a, b, c, d] = v4.octets();
                    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
                }
                IpAddr::V6(v6) => {
                    let nibbles: Vec<String> =
                        v6.octets().iter().flat_map(|o| [o >> 4, o & 15]).map(|n| format!("{n:x}")).rev().collect();
                    format!("{}.ip6.arpa", nibbles.join("."))
                }
            };
            prop_assert_eq!(reverse_address(name.as_bytes()), Some(address));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok((name, used)) = DottedName::read(&bytes) {
                prop_assert!(used <= bytes.len() && used <= MAX_WIRE_NAME);
                prop_assert_eq!(name.as_bytes().len() + 2, used.max(2));
            }
        }
    }
}
