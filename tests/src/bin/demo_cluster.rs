//! `make demo-cluster`: three nodes with one store, and an application for votes on two networks that span them: web
//! servers (nginx), front ends and a worker (Python), a store (redis). Replicas come and go, are replaced under load, and
//! a node loses its power; each claim is checked and each failed request told.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netd_tests::cluster::Node;
use netd_tests::load::{Offer, Steady, Tally};
use netd_tests::show::{background, say, show, wait_for};
use netd_tests::{Cluster, Host, Lab, Place, Process, eventually, lab};
use nix::sys::signal::Signal;

fn main() -> ExitCode {
    match lab::shut_in(demo) {
        Ok(0) => {
            if !lab::inside() {
                println!(
                    "Nothing is left: links, namespaces, rules, processes and files were compared with before."
                );
            }
            ExitCode::SUCCESS
        }
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("demo-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A replica of the front end.
struct Front {
    name: String,
    node: usize,
    program: Process,
}

struct Town {
    cluster: Cluster,
    laptop: Host,
    fronts: Vec<Front>,
    /// Everything else that runs in sandboxes.
    others: Vec<Process>,
    answered: usize,
}

fn demo(lab: &Lab) -> Result<()> {
    let started = Instant::now();
    say(
        "Three nodes, a machine for etcd, and a laptop, as network namespaces. Nothing of this is seen outside.",
    );
    let cluster = Cluster::start(lab, 3)?;
    for node in &cluster.nodes {
        let (name, address) = (&node.host.name, node.host.v4);
        println!("{name}$ netd run --store {} --advertise-addr {address} &", cluster.etcd.url());
    }
    let laptop = lab.host("laptop")?;
    let mut town = Town { cluster, laptop, fronts: Vec::new(), others: Vec::new(), answered: 0 };
    town.build()?;
    town.use_it()?;
    town.scale()?;
    town.replace()?;
    town.restart()?;
    town.lose_the_store()?;
    town.lose_a_node()?;
    town.count()?;

    say("All of it goes again.");
    town.fronts.clear();
    town.others.clear();
    for node in &town.cluster.nodes {
        show(&node.place, "netd down --purge")?;
        ensure!(!node.host.look("ip -br link")?.contains("nv"), "no link is left");
    }
    println!("\nDone in {:.0} s.", started.elapsed().as_secs_f32());
    Ok(())
}

impl Town {
    fn node(&self, number: usize) -> &Node {
        &self.cluster.nodes[number - 1]
    }

    fn build(&mut self) -> Result<()> {
        show(&self.node(1).place, "netd node ls")?;
        say("Two networks that span the nodes: `front`, and `back`, which has no way out. Four services.");
        let first = &self.node(1).place;
        show(first, "netd network create front -d overlay --ipv6")?;
        show(first, "netd network create back -d overlay --internal")?;
        show(first, "netd service create store --network back")?;
        show(first, "netd service create vote --network front --health http://:80/ --health-interval 200ms")?;
        show(first, "netd service create web --network front -p 8080:80")?;
        std::fs::write("/run/lab/vote.py", include_str!("../../fixtures/demo/vote.py"))?;
        std::fs::write("/run/lab/worker.py", include_str!("../../fixtures/demo/worker.py"))?;
        say(
            "The store on node1, the worker on node2, front ends on each node, web servers on node1 and node3.",
        );
        self.sandbox(1, "store1", "--network back --service store")?;
        self.run(1, "store1", "redis-server --save '' --appendonly no --protected-mode no --dir /run/lab")?;
        self.sandbox(2, "worker1", "--network back")?;
        self.run(2, "worker1", "python3 /run/lab/worker.py")?;
        for node in 1..=3 {
            self.front(node, &format!("vote{node}"))?;
        }
        for node in [1, 3] {
            let name = format!("web{node}");
            self.sandbox(node, &name, "--network front --service web")?;
            let config = format!("/run/lab/{name}.conf");
            std::fs::write(&config, nginx(&name))?;
            self.run(node, &name, &format!("nginx -e /dev/null -c {config}"))?;
        }
        for node in &self.cluster.nodes {
            let line = format!("curl -sS --max-time 5 http://{}:8080/", node.host.v4);
            eventually(Duration::from_secs(15), &line, || {
                let seen = self.laptop.look(&line)?;
                ensure!(seen.starts_with("vote"), "it printed {seen:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn sandbox(&self, node: usize, name: &str, flags: &str) -> Result<()> {
        show(&self.node(node).place, &format!("netd sandbox create {name} {flags}")).map(drop)
    }

    fn run(&mut self, node: usize, name: &str, line: &str) -> Result<()> {
        let program = background(&self.node(node).place, &format!("netd exec {name} -- {line}"))?;
        self.others.push(program);
        Ok(())
    }

    /// One more front end.
    fn front(&mut self, node: usize, name: &str) -> Result<()> {
        self.sandbox(node, name, "--network front --network back --service vote")?;
        let line = format!("netd exec {name} -- python3 /run/lab/vote.py {name}");
        let program = background(&self.node(node).place, &line)?;
        program.says("is ready")?;
        self.fronts.push(Front { name: name.into(), node, program });
        Ok(())
    }

    fn use_it(&self) -> Result<()> {
        say(
            "The port is open on every node, for both families; node2 runs no web server. The laptop is seen as itself.",
        );
        for node in &self.cluster.nodes {
            for host in [node.host.v4.to_string(), format!("[{}]", node.host.v6)] {
                let seen = show(&self.laptop, &format!("curl -sS http://{host}:8080/"))?.stdout;
                let own = if host.starts_with('[') {
                    self.laptop.v6.to_string()
                } else {
                    self.laptop.v4.to_string()
                };
                ensure!(seen.trim().ends_with(&own), "the client's own address");
            }
        }
        say("Inside, names lead to a service's address, `tasks.` to its replicas; networks are kept apart.");
        show(&self.node(2).place, "netd exec vote2 -- dig +short vote tasks.vote store")?;
        let apart = self.node(2).place.run("netd exec worker1 -- dig +short vote")?;
        ensure!(apart.text().is_empty(), "the worker is not on the front network");
        Ok(())
    }

    fn scale(&mut self) -> Result<()> {
        say("Scaling: one front end more, which answers at once on every node.");
        self.front(2, "vote4")?;
        wait_for(&self.node(3).place, "netd service ls", "vote")?;
        let load = self.load(&[1, 2, 3])?;
        load.iter().try_for_each(|load| load.more(40))?;
        let tally = self.finish(load)?;
        ensure!(tally.by().len() == 4 && tally.failed() == 0, "all four, and none failed");
        Ok(())
    }

    fn replace(&mut self) -> Result<()> {
        say(
            "Every front end is replaced under load, one after another: a new one, the old one drained, ended, removed.",
        );
        let load = self.load(&[1, 2, 3])?;
        for old in std::mem::take(&mut self.fronts) {
            self.front(old.node, &old.name.replace("vote", "v2-"))?;
            let place = self.node(old.node).place.clone();
            show(&place, &format!("netd service drain vote {}", old.name))?;
            self.empty(&place, &old.name)?;
            old.program.signal(Signal::SIGTERM)?;
            ensure!(old.program.wait(Duration::from_secs(10))? == 0, "it finished what it had");
            show(&place, &format!("netd sandbox rm {}", old.name))?;
        }
        load.iter().try_for_each(|load| load.more(40))?;
        self.flawless(load)
    }

    /// Waits until it has no connection left.
    fn empty(&self, place: &Place, name: &str) -> Result<()> {
        eventually(Duration::from_secs(10), "it has no connection left", || {
            let seen = place.look("netd service inspect vote")?;
            let inspected: serde_json::Value = serde_json::from_str(&seen)?;
            let all = inspected[0]["Endpoints"].as_array().cloned().unwrap_or_default();
            let open =
                all.iter().filter(|one| one["Sandbox"] == name && one["ActiveConnections"] != 0).count();
            ensure!(open == 0, "{inspected}");
            Ok(())
        })
    }

    fn restart(&mut self) -> Result<()> {
        say("netd is killed and started again on every node in turn, under load.");
        let load = self.load(&[1, 2, 3])?;
        for node in &self.cluster.nodes {
            println!("{}$ kill -KILL {}    # netd run", node.host.name, node.pid()?);
            node.kill()?;
            load.iter().try_for_each(|load| load.more(20))?;
            println!("{}$ netd run ... &", node.host.name);
            node.start()?;
        }
        self.flawless(load)
    }

    fn lose_the_store(&mut self) -> Result<()> {
        say("etcd is stopped for longer than the nodes' leases, and comes back.");
        let load = self.load(&[1, 2, 3])?;
        self.cluster.etcd.stop()?;
        load.iter().try_for_each(|load| load.more(8 * RATE))?;
        self.cluster.etcd.restart()?;
        load.iter().try_for_each(|load| load.more(RATE))?;
        self.flawless(load)
    }

    fn lose_a_node(&mut self) -> Result<()> {
        say(
            "node3 loses its power, with a web server and a front end on it, under load through the other two.",
        );
        let load = self.load(&[1, 2])?;
        load.iter().try_for_each(|load| load.more(2 * RATE))?;
        self.cluster.kill(self.node(3))?;
        let killed = Instant::now();
        load.iter().try_for_each(|load| load.more(8 * RATE))?;
        let tally = self.finish(load)?;
        let after = killed + Duration::from_secs(3);
        let early = tally.since(killed).before(after);
        println!("  in the three seconds after: {early}");
        println!("  after that:                 {}", tally.since(after));
        ensure!(tally.since(after).failed() == 0, "none fails after three seconds");
        show(&self.node(1).place, "netd node ls")?;
        println!("Its power comes back.");
        self.fronts.retain(|front| front.node != 3);
        self.cluster.revive(self.node(3))?;
        show(&self.node(3).place, "netd node ls").map(drop)
    }

    /// Every vote that was answered is in the store, counted.
    fn count(&mut self) -> Result<()> {
        say("Every vote that was answered has been counted.");
        let line = "netd exec store1 -- redis-cli hget counted cats";
        let answered = self.answered;
        let place = self.node(1).place.clone();
        let counted = eventually(Duration::from_secs(30), "all votes are counted", || {
            let counted: usize = place.look(line)?.trim().parse()?;
            ensure!(counted >= answered, "{counted} of {answered}");
            Ok(counted)
        })?;
        show(&place, line)?;
        println!(
            "  {answered} answered, {counted} counted (a vote may be counted whose answer was lost with a node)"
        );
        Ok(())
    }

    /// Votes from the laptop through each of these nodes.
    fn load(&self, nodes: &[usize]) -> Result<Vec<Steady>> {
        let one = |node: &usize| {
            let to = (self.node(*node).host.v4, 8080).into();
            Steady::start(&self.laptop, Offer::http(to, "/vote/cats", u32::try_from(RATE)?))
        };
        nodes.iter().map(one).collect()
    }

    fn finish(&mut self, loads: Vec<Steady>) -> Result<Tally> {
        let tallies = loads.into_iter().map(Steady::finish).collect::<Result<Vec<_>>>()?;
        let tally = Tally::join(tallies);
        self.answered += tally.answered();
        println!("  laptop: {tally}");
        Ok(tally)
    }

    fn flawless(&mut self, loads: Vec<Steady>) -> Result<()> {
        let tally = self.finish(loads)?;
        ensure!(tally.failed() == 0, "no request fails");
        Ok(())
    }
}

/// It passes each request on once: what would fail is not hidden by a second attempt of its own.
fn nginx(name: &str) -> String {
    format!(
        "daemon off; master_process off; pid /run/lab/{name}.pid; error_log /dev/null;
         events {{ worker_connections 1024; }}
         http {{
           access_log off; client_body_temp_path /run/lab/{name}-1; proxy_temp_path /run/lab/{name}-2;
           fastcgi_temp_path /run/lab/{name}-3; uwsgi_temp_path /run/lab/{name}-4; scgi_temp_path /run/lab/{name}-5;
           server {{
             listen [::]:80 ipv6only=off backlog=1024;
             location / {{
               proxy_pass http://vote:80; proxy_next_upstream off;
               proxy_set_header x-forwarded-for $remote_addr;
             }}
           }}
         }}"
    )
}

/// Requests a second through each node.
const RATE: usize = 40;
