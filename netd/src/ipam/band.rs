//! The part of a subnet that is kept for services: its last addresses. Dynamic addresses of sandboxes are not taken
//! from it, so that there is room for a service on a full network, and so that nodes which do not hear of each other for
//! a while do not give one address to a sandbox and to a service.

use ipnetwork::IpNetwork;

use super::span::Span;

/// From this size on a subnet can spare the usual least.
const ROOMY: u128 = 64;
const LEAST: u128 = 16;
const MOST: u128 = 256;
/// A sixteenth of the subnet.
const SHARE: u128 = 16;

/// A sixteenth of the subnet, though no less than 16 of 64 addresses or more, and no more than 256. None in a subnet of
/// less than 16.
pub(super) fn band(subnet: IpNetwork) -> Option<Span> {
    let size = Span::from(subnet).len();
    let least = if size >= ROOMY { LEAST } else { 0 };
    let wanted = (size / SHARE).clamp(least, MOST);
    let hosts = Span::hosts(subnet);
    (wanted > 0).then(|| Span { first: hosts.last - wanted + 1, ..hosts })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(subnet: &str) -> Option<String> {
        let span = band(subnet.parse().unwrap())?;
        Some(format!("{}-{}", span.family.address(span.first), span.family.address(span.last)))
    }

    #[test]
    fn it_is_the_last_addresses_and_grows_with_the_subnet() {
        for (subnet, band) in [
            ("10.0.0.0/16", Some("10.0.254.255-10.0.255.254")),
            ("10.0.0.0/24", Some("10.0.0.239-10.0.0.254")),
            ("10.0.0.0/26", Some("10.0.0.47-10.0.0.62")),
            ("10.0.0.0/27", Some("10.0.0.29-10.0.0.30")),
            ("10.0.0.0/28", Some("10.0.0.14-10.0.0.14")),
            ("10.0.0.0/29", None),
            ("10.0.0.0/31", None),
            ("fd00::/64", Some("fd00::ffff:ffff:ffff:ff00-fd00::ffff:ffff:ffff:ffff")),
            ("fd00::/127", None),
        ] {
            assert_eq!(shown(subnet).as_deref(), band, "{subnet}");
        }
    }

    proptest! {
        #[test]
        fn it_leaves_most_of_the_subnet_to_sandboxes(bits in any::<u32>(), prefix in 8..=32_u8) {
            let ip = std::net::Ipv4Addr::from_bits(bits);
            let subnet = IpNetwork::new(ip.into(), prefix).unwrap();
            let subnet = IpNetwork::new(subnet.network(), prefix).unwrap();
            if let Some(band) = band(subnet) {
                let hosts = Span::hosts(subnet);
                prop_assert!(band.within(&hosts) && band.last == hosts.last);
                prop_assert!(band.len() * 4 <= Span::from(subnet).len());
            }
        }
    }
}
