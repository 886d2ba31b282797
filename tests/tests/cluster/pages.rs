//! docs/many-hosts.md: what it tells people to type on each machine works, in its order.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::page::{self, Block};
use netd_tests::runtimes::{cover, write};
use netd_tests::{Daemon, Host, Lab, Place, Process, Setup, eventually, scenario};

/// The machines of the page, with the addresses that it names.
struct Machines {
    hosts: BTreeMap<String, Host>,
    daemons: BTreeMap<String, Daemon>,
    etcd: Option<Process>,
    programs: Vec<Process>,
    /// What was exported.
    env: Vec<(String, String)>,
}

impl Machines {
    fn new(lab: &Lab) -> Result<Self> {
        cover::lay()?;
        let names = ["etcd", "node1", "node2", "node3"];
        let hosts = names.iter().map(|name| Ok(((*name).to_owned(), lab.host(name)?)));
        let hosts = hosts.collect::<Result<_>>()?;
        let (daemons, programs, env) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { hosts, daemons, etcd: None, programs, env })
    }

    fn follow(&mut self, block: &Block) -> Result<()> {
        if let Some(name) = block.kind.strip_prefix("sh ") {
            return block.text.lines().try_for_each(|line| self.type_in(name, line));
        }
        write(block.path.as_ref().context("where does it go?")?, &block.text)
    }

    fn type_in(&mut self, name: &str, line: &str) -> Result<()> {
        let host = self.hosts.get(name).with_context(|| format!("no machine {name}"))?.clone();
        if let Some(words) = line.strip_prefix("export ") {
            let pairs = words.split(' ').filter_map(|word| word.split_once('='));
            self.env.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
            return Ok(());
        }
        let Some(line) = line.strip_suffix(" &") else {
            let place = self.place(name, &host);
            let run = || place.run_with(line, b"", Duration::from_secs(40))?.success().map(drop);
            // A program that was just started needs a moment; nothing is typed that quickly.
            let first = line.starts_with("curl") || line.contains("-- curl") || line.starts_with("etcdctl");
            return if first { eventually(Duration::from_secs(10), line, run) } else { run() };
        };
        if let Some(arguments) = line.strip_prefix("netd run ") {
            let config = std::fs::read_to_string("/etc/netd/netd.toml").unwrap_or_default();
            let daemon = host.daemon_with(Setup { config, arguments: arguments.into() })?;
            self.daemons.insert(name.into(), daemon);
        } else if line.starts_with("etcd ") {
            // One takes the other's place.
            self.etcd = None;
            self.etcd = Some(host.start(line)?);
        } else {
            self.programs.push(self.place(name, &host).start(line)?);
        }
        Ok(())
    }

    fn place(&self, name: &str, host: &Host) -> Place {
        let place = self.daemons.get(name).map_or_else(|| host.place.clone(), |daemon| daemon.place.clone());
        self.env.iter().fold(place, |place, (key, value)| place.with_env(key, value))
    }
}

#[test]
fn the_page_on_many_hosts_works() {
    scenario(|lab| {
        let mut machines = Machines::new(lab)?;
        let page = page::read("many-hosts.md")?;
        for block in page.iter().filter(|block| !block.section.starts_with("TLS")) {
            machines.follow(block).with_context(|| format!("in {:?}", block.section))?;
        }
        for host in machines.hosts.values() {
            let links = host.look("ip -br link")?;
            ensure!(!links.contains("nv") && !links.contains("nd-"), "{links}");
        }
        Ok(())
    });
}

#[test]
fn the_recipe_for_tls_works_and_nobody_else_gets_in() {
    scenario(|lab| {
        let mut machines = Machines::new(lab)?;
        let page = page::read("many-hosts.md")?;
        write("/etc/netd/tls/password", "change-me-too\n")?;
        for block in page.iter().filter(|block| block.section.starts_with("TLS")) {
            machines.follow(block)?;
        }
        let (one, two) = (&machines.daemons["node1"], &machines.daemons["node2"]);
        one.netd("network create shop -d overlay")?;
        eventually(Duration::from_secs(10), "node2 knows the network", || two.inspect("network", "shop"))?;
        // Without the certificate, and with another password.
        let config = std::fs::read_to_string("/etc/netd/netd.toml")?;
        let without = config.lines().filter(|line| !line.starts_with("cert") && !line.starts_with("key"));
        let without = without.collect::<Vec<_>>().join("\n");
        write("/etc/netd/tls/wrong", "guess\n")?;
        let wrong = config.replace("tls/password", "tls/wrong");
        for (name, config) in [("a", without), ("b", wrong)] {
            let host = lab.host(name)?;
            let arguments =
                format!("--store etcds://192.0.2.1:2379 --advertise-addr {} --name {name}", host.v4);
            let daemon = host.daemon_with(Setup { config, arguments })?;
            ensure!(daemon.try_netd("network create mine -d overlay")?.code == 1, "{name} is let in");
        }
        ensure!(!one.netd("node ls")?.stdout.contains("\na "), "it became a node");
        Ok(())
    });
}
