//! `make demo`: netd shown with real programs in the lab. It says what it does, runs the commands a user would type,
//! shows what they print, and checks each claim it makes.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::query::Loop;
use netd_tests::show::{background, say, show, shown, wait_for};
use netd_tests::{Daemon, Host, Lab, Process, eventually, lab};

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
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(lab: &Lab) -> Result<()> {
    let started = Instant::now();
    say(
        "Two machines, n1 and laptop, as network namespaces; netd runs on n1. Nothing of this is seen outside.",
    );
    let (n1, laptop) = (lab.host("n1")?, lab.host("laptop")?);
    println!("  n1      {} {}\n  laptop  {} {}", n1.v4, n1.v6, laptop.v4, laptop.v6);
    println!("n1$ netd run &");
    let netd = n1.daemon()?;
    let programs = [servers(&netd)?, names(&netd)?, published(&netd, &n1, &laptop)?].into_iter().flatten();
    let programs: Vec<_> = programs.collect();
    modes(&netd)?;
    killed(&netd, &n1, &laptop)?;

    say("All of it goes again.");
    drop(programs);
    show(&netd.place, "netd down --purge")?;
    ensure!(!n1.look("ip -br link")?.contains("nv"), "no link is left on n1");
    show(&n1, "ip -br link")?;
    println!("\nDone in {:.0} s.", started.elapsed().as_secs_f32());
    Ok(())
}

/// Two web servers and a client on a network.
fn servers(netd: &Daemon) -> Result<Vec<Process>> {
    say("A network, and two web servers on it that share the alias `search`.");
    show(&netd.place, "netd network create shop --ipv6")?;
    let mut programs = Vec::new();
    for name in ["search1", "search2"] {
        let root = format!("/run/lab/{name}");
        std::fs::create_dir_all(&root)?;
        std::fs::write(format!("{root}/name"), format!("{name}\n"))?;
        show(&netd.place, &format!("netd sandbox create {name} --network shop --alias search"))?;
        programs.push(background(
            &netd.place,
            &format!("netd exec {name} -- python3 -m http.server 80 --bind :: --directory {root}"),
        )?);
    }
    show(&netd.place, "netd sandbox create client --network shop")?;
    for name in ["search1", "search2"] {
        wait_for(
            &netd.place,
            &format!("netd exec client -- curl -sS --max-time 2 http://{name}/name"),
            name,
        )?;
    }
    Ok(programs)
}

/// Names and the even rotation behind an alias.
fn names(netd: &Daemon) -> Result<Vec<Process>> {
    say("They find each other by name; who asks for the alias is led to each of them equally often.");
    show(&netd.place, "netd exec client -- dig +short search1 search1.shop")?;
    show(&netd.place, "netd exec client -- dig +short search AAAA")?;
    let count = "netd exec client -- sh -c 'for i in $(seq 40); do curl -s http://search/name; done | sort | uniq -c'";
    let seen = show(&netd.place, count)?.stdout;
    let even = ["search1", "search2"]
        .iter()
        .all(|name| seen.lines().any(|line| line.trim() == format!("20 {name}")));
    ensure!(even, "20 answers from each server, not {seen}");
    show(&netd.place, "netd dns dump client")?;
    Ok(Vec::new())
}

/// TCP and UDP ports, used from the other machine.
fn published(netd: &Daemon, n1: &Host, laptop: &Host) -> Result<Vec<Process>> {
    say(
        "Ports of n1 lead to sandboxes: redis and a web server over TCP, a DNS server over UDP. The laptop uses them.",
    );
    let address = n1.v4;
    std::fs::write("/run/lab/search1/big", vec![b'x'; BIG])?;
    show(&netd.place, "netd publish search1 8080:80")?;
    show(&netd.place, "netd sandbox create cache --network shop -p 6379:6379")?;
    show(&netd.place, "netd sandbox create resolver --network shop -p 5300:53/udp")?;
    let programs = vec![
        background(
            &netd.place,
            "netd exec cache -- redis-server --save '' --appendonly no --protected-mode no --dir /run/lab",
        )?,
        background(
            &netd.place,
            "netd exec resolver -- dnsmasq -k -C /dev/null -u root -x '' -R -h --host-record=hello.example,192.0.2.80",
        )?,
    ];
    wait_for(laptop, &format!("redis-cli -h {address} set greeting hello"), "OK")?;
    show(laptop, &format!("redis-cli -h {address} get greeting"))?;
    show(laptop, &format!("curl -sS http://{address}:8080/name"))?;
    show(laptop, &format!("curl -sS http://[{}]:8080/name", n1.v6))?;
    wait_for(
        laptop,
        &format!("dig +short +tries=1 +timeout=2 -p 5300 @{address} hello.example"),
        "192.0.2.80",
    )?;
    println!("A port that is taken says by whom:");
    let clash = shown(&netd.place, "netd sandbox create late -p 6379:80")?;
    ensure!(clash.code == 1 && clash.stderr.contains("cache"), "the owner is named");
    show(&netd.place, "netd sandbox ls")?;
    Ok(programs)
}

/// container: and none.
fn modes(netd: &Daemon) -> Result<()> {
    say("A sandbox in container mode shares localhost with another; one in mode none has only lo.");
    show(&netd.place, "netd sandbox create sidecar --network container:cache")?;
    let pong = show(&netd.place, "netd exec sidecar -- redis-cli -h 127.0.0.1 ping")?;
    ensure!(pong.text() == "PONG", "the sidecar reaches redis on localhost");
    show(&netd.place, "netd sandbox create locked --network none")?;
    let links = show(&netd.place, "netd exec locked -- ip -br link")?.stdout;
    ensure!(links.lines().count() == 1, "only lo");
    Ok(())
}

/// The control plane dies while a download and a loop of queries go on.
fn killed(netd: &Daemon, n1: &Host, laptop: &Host) -> Result<()> {
    say("The control plane is killed in the middle of a download and of a loop of DNS queries.");
    let queries = Loop::start(&netd.inside("client"), "search")?;
    let fetch = format!("curl -sS --limit-rate 8M -o /run/lab/got http://{}:8080/big", n1.v4);
    let download = background(laptop, &fetch)?;
    eventually(Duration::from_secs(5), "the download is under way", || {
        ensure!(std::fs::metadata("/run/lab/got")?.len() > 0);
        Ok(())
    })?;
    println!("n1$ kill -KILL {}    # netd run", netd.pid()?);
    netd.kill()?;
    println!("It is gone; new connections are served all the same:");
    show(laptop, &format!("curl -sS http://{}:8080/name", n1.v4))?;
    let code = download.wait(Duration::from_secs(30))?;
    println!("n1$ netd run &");
    netd.start()?;
    let answers = queries.finish()?;
    let got = std::fs::read("/run/lab/got").context("read what was fetched")?;
    ensure!(code == 0 && got.len() == BIG && got.iter().all(|byte| *byte == b'x'), "the download is whole");
    println!(
        "The download ended well with {} MB; {} DNS queries, each answered, the slowest in {:.1} ms.",
        got.len() >> 20,
        answers.answered,
        answers.slowest.as_secs_f64() * 1e3
    );
    show(&netd.place, "netd port cache").map(drop)
}

/// Some seconds at the pace at which it is fetched.
const BIG: usize = 24 << 20;
