//! Goldens of the two files.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::model::{Link, Network};
use crate::testing;

const HOST: &str = "nameserver 127.0.0.53\nsearch corp.example\noptions edns0\n";

fn model() -> Model {
    let mut model = Model::default();
    for network in [
        Network { resolves: false, ..testing::network("bridge", &[]) },
        Network { internal: true, ..testing::network("in", &[]) },
        testing::network("shop", &[]),
    ] {
        model.networks.insert(Arc::clone(&network.id), Arc::new(network));
    }
    model
}

fn on(networks: &[(&str, &[&str])]) -> Sandbox {
    let mut sandbox = testing::sandbox("web");
    for (network, addresses) in networks {
        let addresses: Vec<(IpAddr, u8)> =
            addresses.iter().map(|address| (address.parse().unwrap(), 24)).collect();
        sandbox.endpoints.push(testing::endpoint(&(*network).into(), &addresses));
    }
    sandbox
}

fn conf(sandbox: &Sandbox, host: &str) -> String {
    resolv_conf(sandbox, &model(), &ResolvConf::parse(host)).unwrap()
}

fn body(sandbox: &Sandbox, host: &str) -> String {
    let text = conf(sandbox, host);
    text.split_once('\n').unwrap().1.to_owned()
}

#[test]
fn a_network_with_names_puts_our_resolver_before_the_hosts() {
    assert_eq!(
        conf(&on(&[("id-shop", &["10.0.0.2"])]), HOST),
        "# Written by netd for web. Servers: the host's, 127.0.0.53, asked from the host.\n\
         nameserver 127.0.0.11\nsearch corp.example\noptions edns0 ndots:0\n"
    );
    assert_eq!(
        conf(&on(&[("id-in", &["10.0.0.2"])]), ""),
        "# Written by netd for web. Servers: none, all networks are internal.\n\
         nameserver 127.0.0.11\noptions ndots:0\n"
    );
}

#[test]
fn flags_replace_what_the_host_says() {
    let mut sandbox = on(&[("id-shop", &["10.0.0.2"])]);
    sandbox.dns.servers = vec!["10.0.0.9".parse().unwrap()];
    sandbox.dns.search = vec![".".into()];
    sandbox.dns.options = vec!["timeout:1".into()];
    assert_eq!(
        conf(&sandbox, HOST),
        "# Written by netd for web. Servers: those given, 10.0.0.9.\n\
         nameserver 127.0.0.11\noptions timeout:1 ndots:0\n"
    );
}

#[test]
fn ndots_is_kept_if_it_is_a_number_and_nought_otherwise() {
    for (given, wanted) in [
        (&["ndots:5"][..], "options ndots:5\n"),
        (&["ndots:0"], "options ndots:0\n"),
        (&["ndots:foobar"], "options ndots:0\n"),
        (&["ndots:-1"], "options ndots:0\n"),
        (&["ndots:", "rotate"], "options rotate ndots:0\n"),
        (&[], "options ndots:0\n"),
    ] {
        let mut sandbox = on(&[("id-shop", &["10.0.0.2"])]);
        sandbox.dns.options = given.iter().map(ToString::to_string).collect();
        assert_eq!(body(&sandbox, ""), format!("nameserver 127.0.0.11\n{wanted}"), "{given:?}");
    }
}

#[test]
fn the_default_network_has_the_hosts_servers_that_it_can_reach() {
    let v4 = on(&[("id-bridge", &["172.17.0.2"])]);
    let v6 = on(&[("id-bridge", &["172.17.0.2", "fd00::2"])]);
    let host = "nameserver ::1\nnameserver 10.0.0.1\nnameserver 2001:db8::1\noptions ndots:3\n";
    assert_eq!(body(&v4, host), "nameserver 10.0.0.1\noptions ndots:3\n");
    assert_eq!(body(&v6, host), "nameserver 10.0.0.1\nnameserver 2001:db8::1\noptions ndots:3\n");
    assert_eq!(body(&v4, "nameserver fe80::1%eth0\n"), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    assert_eq!(
        body(&v6, HOST),
        "nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\n\
         nameserver 2001:4860:4860::8844\nsearch corp.example\noptions edns0\n"
    );
    let mut given = v4;
    given.dns.servers = vec!["127.0.0.1".parse().unwrap()];
    assert_eq!(body(&given, host), "nameserver 127.0.0.1\noptions ndots:3\n", "the user knows");
}

#[test]
fn the_hosts_namespace_has_the_hosts_servers_and_a_shared_one_no_file_of_its_own() {
    let mut sandbox = on(&[]);
    sandbox.mode = Mode::Host;
    assert_eq!(body(&sandbox, HOST), HOST);
    sandbox.extra_hosts = vec![("db".into(), "10.0.0.9".parse().unwrap())];
    assert_eq!(
        hosts(&sandbox, &model(), "127.0.0.1 localhost\n10.1.1.1 box").unwrap(),
        "127.0.0.1 localhost\n10.1.1.1 box\n10.0.0.9\tdb\n"
    );
    sandbox.mode = Mode::Container("id-other".into());
    assert_eq!(resolv_conf(&sandbox, &model(), &ResolvConf::default()), None);
    assert_eq!(hosts(&sandbox, &model(), ""), None);
}

#[test]
fn the_hosts_file_has_the_sandbox_on_each_of_its_networks() {
    let mut sandbox = on(&[("id-shop", &["10.0.0.2"]), ("id-bridge", &["172.17.0.2"])]);
    sandbox.extra_hosts = vec![("host.internal".into(), "10.0.0.1".parse().unwrap())];
    assert_eq!(
        hosts(&sandbox, &model(), "ignored").unwrap(),
        "127.0.0.1\tlocalhost\n10.0.0.1\thost.internal\n10.0.0.2\tweb\n172.17.0.2\tweb\n"
    );
    sandbox.hostname = "web.example.com".into();
    sandbox.endpoints.pop();
    assert!(hosts(&sandbox, &model(), "").unwrap().ends_with("10.0.0.2\tweb.example.com web\n"));
}

#[test]
fn ipv6_lines_come_with_ipv6() {
    let sandbox = on(&[("id-shop", &["10.0.0.2", "fd00::2"])]);
    assert_eq!(
        hosts(&sandbox, &model(), "").unwrap(),
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.2\tweb\nfd00::2\tweb\n"
    );
}

#[test]
fn links_are_lines_on_the_default_network_only() {
    let mut model = model();
    let mut target = on(&[("id-bridge", &["172.17.0.3"]), ("id-shop", &["10.0.0.3"])]);
    target.id = "id-db".into();
    target.name = "db".into();
    target.hostname = "database".into();
    model.sandboxes.insert(Arc::clone(&target.id), Arc::new(target));
    let mut sandbox = on(&[("id-bridge", &["172.17.0.2"]), ("id-shop", &["10.0.0.2"])]);
    sandbox.links = vec![
        Link { sandbox: "id-db".into(), alias: "store".into() },
        Link { sandbox: "id-gone".into(), alias: "gone".into() },
    ];
    let text = hosts(&sandbox, &model, "").unwrap();
    assert!(text.ends_with("10.0.0.2\tweb\n172.17.0.3\tstore database db\n"), "{text}");
}
