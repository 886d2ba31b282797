//! A proxy that runs out of descriptors: everybody is served in the end, and nobody spins meanwhile. The limit is the
//! process's, so clients and backend are another process: this test again, told by the environment to be them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{Bed, Server, connect, eventually};
use netd_proxy::Config;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

const AS_CLIENTS: &str = "NETD_TEST_AS_CLIENTS";
const DESCRIPTORS: u64 = 90;
const CLIENTS: usize = 120;

#[test]
fn without_descriptors_connections_wait_and_nobody_spins() {
    if env::var_os(AS_CLIENTS).is_some() {
        return clients();
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let mut other = Command::new(env::current_exe().unwrap())
        .args(["--exact", "without_descriptors_connections_wait_and_nobody_spins", "--nocapture"])
        .env(AS_CLIENTS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = |what: &str| {
        lines.find_map(|line| line.split_once(what).map(|(_, rest)| rest.trim().to_owned())).unwrap()
    };
    let backend = said("backend ").parse().unwrap();
    let mut bed = Bed::with(&[backend], &Config { workers: 2, ..Config::default() });
    let address = bed.listen();
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard).unwrap();
    writeln!(other.stdin.as_mut().unwrap(), "{address}").unwrap();
    // All clients are connected, as far as they know, and the first ones hold their connections.
    said("waiting");
    eventually("the descriptors are used up", || (bed.counts().open >= 25).then_some(()));
    let (before, until) = (processor_time(), Instant::now() + Duration::from_millis(1500));
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
    let spent = processor_time() - before;
    assert!(spent < Duration::from_millis(300), "{spent:?} of a second and a half spent waiting");
    assert!(bed.counts().accepted < CLIENTS as u64);
    writeln!(other.stdin.as_mut().unwrap(), "go").unwrap();
    assert!(other.wait().unwrap().success());
    assert_eq!(bed.settle().accepted, CLIENTS as u64);
}

fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Duration::from_micros(micros.try_into().unwrap())
}

fn clients() {
    let server = Server::echo();
    println!("backend {}", server.address);
    let mut lines = std::io::stdin().lines().map_while(Result::ok);
    let address = lines.next().unwrap().parse().unwrap();
    let connected = Barrier::new(CLIENTS + 1);
    let go = Barrier::new(CLIENTS + 1);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (connected, go) = (&connected, &go);
            scope.spawn(move || {
                let mut client = connect(address);
                let words = [u8::try_from(number).unwrap(); 1000];
                client.write_all(&words).unwrap();
                connected.wait();
                go.wait();
                let mut echo = [0; 1000];
                client.read_exact(&mut echo).unwrap();
                assert_eq!(echo, words);
            });
        }
        connected.wait();
        println!("waiting");
        lines.next();
        go.wait();
    });
}
