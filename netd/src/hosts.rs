//! The `hosts` file of a sandbox with a namespace of its own. Pure text from records.
//!
//! Other sandboxes are not in it (the resolver knows them), except for links over the default network, which has no
//! resolver.

use std::fmt::Write;
use std::net::IpAddr;

use crate::model::{Endpoint, Id, Model, Sandbox};

pub(crate) fn render(sandbox: &Sandbox, model: &Model) -> String {
    let mut lines = Lines::default();
    lines.loopback(sandbox.has_v6());
    for (name, address) in &sandbox.extra_hosts {
        lines.add(*address, &[name]);
    }
    for address in sandbox.endpoints.iter().flat_map(Endpoint::addresses) {
        match sandbox.hostname.split_once('.') {
            Some((short, _)) => lines.add(address, &[&sandbox.hostname, short]),
            None => lines.add(address, &[&sandbox.hostname]),
        }
    }
    lines.links(sandbox, model);
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, address: IpAddr, names: &[&str]) {
        writeln!(self.0, "{address}\t{}", names.join(" ")).expect("writing to a string does not fail");
    }

    fn loopback(&mut self, v6: bool) {
        self.0.push_str("127.0.0.1\tlocalhost\n");
        if v6 {
            self.0.push_str(
                "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
                 ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
            );
        }
    }

    fn links(&mut self, sandbox: &Sandbox, model: &Model) {
        let has_names = |network: &Id| model.networks.get(network).is_none_or(|network| network.resolves);
        let unnamed: Vec<&Id> = sandbox
            .endpoints
            .iter()
            .map(|endpoint| &endpoint.network)
            .filter(|network| !has_names(network))
            .collect();
        for link in &sandbox.links {
            let Some(target) = model.sandboxes.get(&link.sandbox) else { continue };
            let mut names: Vec<&str> = vec![&link.alias];
            for name in [&target.hostname, &target.name].map(|name| &**name) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let shared = target.endpoints.iter().filter(|endpoint| unnamed.contains(&&endpoint.network));
            for address in shared.flat_map(Endpoint::addresses) {
                self.add(address, &names);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Link, Network};
    use crate::testing;

    fn model() -> Model {
        let mut model = Model::default();
        let bridge = Network { resolves: false, ..testing::network("bridge", &[]) };
        for network in [bridge, testing::network("shop", &[])] {
            model.networks.insert(Arc::clone(&network.id), Arc::new(network));
        }
        model
    }

    fn on(name: &str, networks: &[(&str, &[&str])]) -> Sandbox {
        let mut sandbox = testing::sandbox(name);
        for (network, addresses) in networks {
            sandbox.endpoints.push(testing::endpoint_at(network, addresses));
        }
        sandbox
    }

    #[test]
    fn the_sandbox_stands_in_it_on_each_of_its_networks() {
        let mut sandbox = on("web", &[("id-shop", &["10.0.0.2"]), ("id-bridge", &["172.17.0.2"])]);
        sandbox.extra_hosts = vec![("host.internal".into(), "10.0.0.1".parse().unwrap())];
        assert_eq!(
            render(&sandbox, &model()),
            "127.0.0.1\tlocalhost\n10.0.0.1\thost.internal\n10.0.0.2\tweb\n172.17.0.2\tweb\n"
        );
        sandbox.hostname = "web.example.com".into();
        sandbox.endpoints.pop();
        assert!(render(&sandbox, &model()).ends_with("10.0.0.2\tweb.example.com web\n"));
    }

    #[test]
    fn ipv6_lines_come_with_ipv6() {
        assert_eq!(
            render(&on("web", &[("id-shop", &["10.0.0.2", "fd00::2"])]), &model()),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.2\tweb\nfd00::2\tweb\n"
        );
    }

    #[test]
    fn links_are_lines_on_the_default_network_only() {
        let mut model = model();
        let target = on("db", &[("id-bridge", &["172.17.0.3"]), ("id-shop", &["10.0.0.3"])]);
        let target = Sandbox { hostname: "database".into(), ..target };
        model.sandboxes.insert(Arc::clone(&target.id), Arc::new(target));
        let mut sandbox = on("web", &[("id-bridge", &["172.17.0.2"]), ("id-shop", &["10.0.0.2"])]);
        sandbox.links = vec![
            Link { sandbox: "id-db".into(), alias: "store".into() },
            Link { sandbox: "id-gone".into(), alias: "gone".into() },
        ];
        let text = render(&sandbox, &model);
        assert!(text.ends_with("10.0.0.2\tweb\n172.17.0.3\tstore database db\n"), "{text}");
    }
}
