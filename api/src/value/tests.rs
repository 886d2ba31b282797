//! Values are refused with their own text, or come back from their text as they were.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

#[test]
fn every_form_of_a_published_port() {
    let forms = [
        ("80", None, None, (80, 80), Protocol::Tcp),
        ("80/udp", None, None, (80, 80), Protocol::Udp),
        ("80/TCP", None, None, (80, 80), Protocol::Tcp),
        ("8080:80", None, Some((8080, 8080)), (80, 80), Protocol::Tcp),
        (":80", None, None, (80, 80), Protocol::Tcp),
        ("127.0.0.1::8080", Some("127.0.0.1"), None, (8080, 8080), Protocol::Tcp),
        ("127.0.0.1:53:5353/udp", Some("127.0.0.1"), Some((53, 53)), (5353, 5353), Protocol::Udp),
        ("[::1]:8080:80", Some("::1"), Some((8080, 8080)), (80, 80), Protocol::Tcp),
        ("[fe80::1]::80", Some("fe80::1"), None, (80, 80), Protocol::Tcp),
        ("8000-8010:80", None, Some((8000, 8010)), (80, 80), Protocol::Tcp),
        ("9800-9803:80-83", None, Some((9800, 9803)), (80, 83), Protocol::Tcp),
        ("80-83", None, None, (80, 83), Protocol::Tcp),
    ];
    for (text, address, host, container, protocol) in forms {
        let spec: PortSpec = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let range = |(first, last)| PortRange::new(first, last).unwrap();
        assert_eq!(spec.host_address(), address.map(|a| a.parse::<IpAddr>().unwrap()), "{text}");
        assert_eq!(spec.host_ports(), host.map(range), "{text}");
        assert_eq!(spec.container_ports(), range(container), "{text}");
        assert_eq!(spec.protocol(), protocol, "{text}");
    }
    assert!("8000-8010:80".parse::<PortSpec>().unwrap().takes_first_free());
    assert!(!"8000-8010:80-90".parse::<PortSpec>().unwrap().takes_first_free());
}

#[test]
fn a_wrong_published_port_is_refused_with_its_text_and_a_remedy() {
    let wrong = [
        "",
        ":",
        "::",
        "a",
        "0",
        "65536",
        "-1",
        "+80",
        "80:",
        "0:80",
        "80:0",
        "80:65536",
        "9090-9089:80",
        "9090-:80",
        "-9090:80",
        "8000-8002:80-81",
        "8000:80-81",
        "80/sctp",
        "80/",
        "80/tcp/udp",
        "1.2.3:80:80",
        "::1:80:80",
        "[::1]",
        "[::1]80",
        "[::1]:",
        "[::1:80:80",
        "[1.2.3.4]:80:80",
        "[::ffff:1.2.3.4]:80:80",
        "host:80:80",
        "80:80 ",
        "80-81-82",
        "1.2.3.4:80:80:80",
    ];
    for text in wrong {
        let error = text.parse::<PortSpec>().expect_err(text);
        let message = error.to_string();
        assert!(message.contains(&format!("{text:?}")) || text.contains('/'), "{text}: {message}");
        assert!(!error.remedy.is_empty(), "{text}");
    }
    assert_eq!(
        "8000-8002:80-81".parse::<PortSpec>().unwrap_err().to_string(),
        "published port \"8000-8002:80-81\": 3 host ports cannot lead to 2 container ports; make both ranges \
         equally long, or name one container port"
    );
}

#[test]
fn a_subnet_with_host_bits_is_told_what_it_should_be() {
    let error = "10.1.2.3/16".parse::<Subnet>().unwrap_err();
    assert_eq!(error.to_string(), "subnet \"10.1.2.3/16\": host bits are set; write 10.1.0.0/16");
    for wrong in
        ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "0.0.0.0/0", "::/0", "fd00::/129", "x/8"]
    {
        wrong.parse::<Subnet>().expect_err(wrong);
    }
    for right in ["10.0.0.0/8", "192.168.1.0/24", "10.0.0.1/32", "fd00:1::/64"] {
        assert_eq!(right.parse::<Subnet>().unwrap().to_string(), right);
    }
}

#[test]
fn names_keep_out_what_would_leave_a_directory_or_a_line() {
    let long = "a".repeat(65);
    for wrong in ["", "a/b", "../x", "a\0b", "a b", "a\nb", ".hidden", "-x", "ä", long.as_str()] {
        wrong.parse::<SandboxName>().expect_err(wrong);
    }
    for wrong in ["", "a/b", "a\0b", "a b", " ", "a\nb", "host", "none", "container:x", "..", long.as_str()] {
        wrong.parse::<NetworkName>().expect_err(wrong);
    }
    for right in ["web", "a", "Web_1.x-y", &long[..64]] {
        right.parse::<SandboxName>().unwrap();
    }
    for right in ["test@#$", "kiwl$%^", "bridge", "netz-ä", &long[..64]] {
        right.parse::<NetworkName>().unwrap();
    }
    for wrong in ["", "a b", "ndots:2\nnameserver 1.2.3.4", "ä"] {
        wrong.parse::<ResolvOption>().expect_err(wrong);
        wrong.parse::<SearchDomain>().expect_err(wrong);
        wrong.parse::<Alias>().expect_err(wrong);
        wrong.parse::<Hostname>().expect_err(wrong);
    }
    assert_eq!(&*"Search".parse::<Alias>().unwrap(), "search");
    ".".parse::<SearchDomain>().unwrap();
    "lan.".parse::<SearchDomain>().unwrap();
    ".lan".parse::<SearchDomain>().unwrap_err();
}

#[test]
fn a_long_value_is_cut_in_its_error() {
    let message = "x".repeat(100_000).parse::<SandboxName>().unwrap_err().to_string();
    assert!(message.len() < 300, "{} bytes", message.len());
    assert!(message.contains("100000 characters"), "{message}");
}

#[test]
fn a_mac_address_of_a_device() {
    assert_eq!("02-42-AC-11-00-02".parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
    for wrong in [
        "",
        "02:42:ac:11:00",
        "02:42:ac:11:00:02:03",
        "01:00:5e:00:00:01",
        "00:00:00:00:00:00",
        "2:42:ac:11:0:2",
        "02:42:ac:11:00:+2",
    ] {
        wrong.parse::<Mac>().expect_err(wrong);
    }
}

#[test]
fn host_entries_and_links() {
    let entry: AddHost = "db:10.0.0.1".parse().unwrap();
    assert_eq!((&*entry.name, entry.address), ("db", "10.0.0.1".parse().unwrap()));
    for same in ["db:fd00::1", "db=fd00::1", "db:[fd00::1]"] {
        assert_eq!(same.parse::<AddHost>().unwrap().to_string(), "db:fd00::1");
    }
    for wrong in ["", "db", "db:", ":1.2.3.4", "db:x", "a b:1.2.3.4"] {
        wrong.parse::<AddHost>().expect_err(wrong);
    }
    let link: LinkSpec = "redis:Cache".parse().unwrap();
    assert_eq!((&*link.sandbox, link.alias.as_deref()), ("redis", Some("cache")));
    assert_eq!("redis".parse::<LinkSpec>().unwrap().alias, None);
    "redis:".parse::<LinkSpec>().unwrap_err();
}

#[test]
fn times_are_rfc_3339_or_seconds() {
    let new_year: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!("1767225600".parse::<Timestamp>().unwrap(), new_year);
    assert_eq!(new_year.to_string(), "2026-01-01T00:00:00.000000000Z");
    for wrong in ["", "yesterday", "-1", "nan", "inf", "1e300", "253402300800"] {
        wrong.parse::<Timestamp>().expect_err(wrong);
    }
}

fn range() -> impl Strategy<Value = PortRange> {
    (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap())
}

fn spec() -> impl Strategy<Value = PortSpec> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let parts = (any::<Option<IpAddr>>(), proptest::option::of(range()), range(), protocol);
    parts.prop_filter_map("lengths differ", |(address, host, container, protocol)| {
        PortSpec::new(address, host, container, protocol)
            .or_else(|_| PortSpec::new(address, Some(container), container, protocol))
            .ok()
    })
}

proptest! {
    #[test]
    fn a_published_port_comes_back_from_its_text(spec in spec()) {
        prop_assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec));
    }

    #[test]
    fn no_text_is_a_port_outside_1_to_65535(number in any::<u32>()) {
        let valid = (1..=65535).contains(&number);
        prop_assert_eq!(number.to_string().parse::<PortSpec>().is_ok(), valid);
        prop_assert_eq!(format!("{number}:80").parse::<PortSpec>().is_ok(), valid);
    }

    #[test]
    fn what_is_accepted_means_the_same_when_written_again(text in "[0-9a-f:.\\[\\]/\\-tcpud]{0,40}|\\PC{0,40}") {
        if let Ok(spec) = text.parse::<PortSpec>() {
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }
        if let Ok(subnet) = text.parse::<Subnet>() {
            prop_assert_eq!(subnet.to_string().parse(), Ok(subnet));
        }
        if let Ok(entry) = text.parse::<AddHost>() {
            prop_assert_eq!(entry.to_string().parse(), Ok(entry));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
        if let Ok(name) = text.parse::<SandboxName>() {
            prop_assert!(name.len() <= 64 && !name.contains('/') && &*name != "." && &*name != "..");
        }
    }

    #[test]
    fn a_subnet_is_accepted_exactly_without_host_bits(address in any::<IpAddr>(), prefix in 1..=32u8) {
        let network = ipnetwork::IpNetwork::new(address, prefix).unwrap();
        let text = format!("{address}/{prefix}");
        prop_assert_eq!(text.parse::<Subnet>().is_ok(), network.network() == address);
    }
}
