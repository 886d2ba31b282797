//! How published ports are written.

use super::*;

fn map(ports: &[(&str, &[(&str, u16)])]) -> PortMap {
    let binding = |&(ip, port): &(&str, u16)| PortBinding { host_ip: ip.into(), host_port: port.to_string() };
    ports.iter().map(|(port, host)| ((*port).to_owned(), host.iter().map(binding).collect())).collect()
}

#[test]
fn lines_are_in_the_order_of_numbers() {
    let ports = map(&[
        ("8080/tcp", &[("127.0.0.1", 80)]),
        ("80/tcp", &[("0.0.0.0", 8080), ("::", 8080)]),
        ("53/udp", &[]),
    ]);
    assert_eq!(lines(&ports), "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n8080/tcp -> 127.0.0.1:80\n");
}

#[test]
fn neighbours_are_told_together() {
    let numbers: Vec<(String, u16)> = (0..1000).map(|i| (format!("{}/udp", 5000 + i), 9000 + i)).collect();
    let mut ports: PortMap = BTreeMapOf(&numbers).into();
    ports.extend(map(&[("80/tcp", &[("0.0.0.0", 8080), ("::", 8080)]), ("443/tcp", &[]), ("444/tcp", &[])]));
    assert_eq!(
        condensed(&ports),
        "0.0.0.0:8080->80/tcp, 0.0.0.0:9000-9999->5000-5999/udp, [::]:8080->80/tcp, 443-444/tcp"
    );
    assert_eq!(condensed(&PortMap::new()), "");
}

struct BTreeMapOf<'a>(&'a [(String, u16)]);

impl From<BTreeMapOf<'_>> for PortMap {
    fn from(numbers: BTreeMapOf<'_>) -> Self {
        let one = |(port, host): &(String, u16)| {
            (port.clone(), vec![PortBinding { host_ip: "0.0.0.0".into(), host_port: host.to_string() }])
        };
        numbers.0.iter().map(one).collect()
    }
}

#[test]
fn a_port_is_chosen_by_number_and_protocol() {
    assert!(among("80/tcp", "80".parse().unwrap()));
    assert!(among("81/tcp", "80-82".parse().unwrap()));
    assert!(!among("80/udp", "80".parse().unwrap()));
    assert!(!among("8080/tcp", "80".parse().unwrap()));
}
