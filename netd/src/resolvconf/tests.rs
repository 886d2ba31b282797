//! Goldens of a sandbox's file.

use std::sync::Arc;

use super::*;
use crate::model::Network;
use crate::testing;

const HOST: &str = "nameserver 127.0.0.53\nsearch corp.example\noptions edns0\n";

fn on(network: &str, addresses: &[&str]) -> Sandbox {
    let mut sandbox = testing::sandbox("web");
    sandbox.endpoints.push(testing::endpoint_at(network, addresses));
    sandbox
}

fn whole(sandbox: &Sandbox, host: &str) -> String {
    let mut model = Model::default();
    for network in [
        Network { resolves: false, ..testing::network("bridge", &[]) },
        Network { internal: true, ..testing::network("in", &[]) },
        testing::network("shop", &[]),
    ] {
        model.networks.insert(Arc::clone(&network.id), Arc::new(network));
    }
    render(sandbox, &model, &HostConf::parse(host))
}

/// Without the comment.
fn body(sandbox: &Sandbox, host: &str) -> String {
    whole(sandbox, host).split_once('\n').unwrap().1.to_owned()
}

#[test]
fn a_network_with_names_puts_our_resolver_before_the_hosts() {
    assert_eq!(
        whole(&on("id-shop", &["10.0.0.2"]), HOST),
        "# Written by netd for web. Servers: the host's, 127.0.0.53, asked from the host.\n\
         nameserver 127.0.0.11\nsearch corp.example\noptions edns0 ndots:0\n"
    );
    assert_eq!(
        whole(&on("id-in", &["10.0.0.2"]), ""),
        "# Written by netd for web. Servers: none, all networks are internal.\n\
         nameserver 127.0.0.11\noptions ndots:0\n"
    );
}

#[test]
fn flags_replace_what_the_host_says_part_by_part() {
    let mut sandbox = on("id-shop", &["10.0.0.2"]);
    sandbox.dns.servers = vec!["10.0.0.9".parse().unwrap()];
    sandbox.dns.search = vec![".".into()];
    assert_eq!(
        whole(&sandbox, HOST),
        "# Written by netd for web. Servers: those given, 10.0.0.9.\n\
         nameserver 127.0.0.11\noptions edns0 ndots:0\n"
    );
    sandbox.dns.search = vec!["a".into(), "b".into()];
    sandbox.dns.options = vec!["timeout:1".into()];
    assert_eq!(body(&sandbox, HOST), "nameserver 127.0.0.11\nsearch a b\noptions timeout:1 ndots:0\n");
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
        let mut sandbox = on("id-shop", &["10.0.0.2"]);
        sandbox.dns.options = given.iter().map(ToString::to_string).collect();
        assert_eq!(body(&sandbox, ""), format!("nameserver 127.0.0.11\n{wanted}"), "{given:?}");
    }
}

#[test]
fn the_default_network_has_the_hosts_servers_that_it_can_reach() {
    let v4 = on("id-bridge", &["172.17.0.2"]);
    let v6 = on("id-bridge", &["172.17.0.2", "fd00::2"]);
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
