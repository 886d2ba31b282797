//! Where the workers run, as `taskset -p` would tell.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::eventually;
use netd_proxy::{Config, Proxy};
use netd_sys::processor;

/// Of each worker of this process, the processors it may run on.
fn workers() -> Vec<String> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        if field("Name:").unwrap().starts_with("proxy-") {
            found.push(field("Cpus_allowed_list:").unwrap());
        }
    }
    found
}

#[test]
fn each_worker_has_a_processor_of_its_own_where_there_are_as_many() {
    let all = processor::allowed().unwrap();
    let proxy = Proxy::start(&Config { workers: all.len(), ..Config::default() }).unwrap();
    let places: BTreeSet<_> = running(all.len()).into_iter().collect();
    assert_eq!(places, all.iter().map(usize::to_string).collect());
    assert_eq!(processor::allowed().unwrap(), all, "who starts a proxy is not bound");
    drop(proxy);
    running(0);
    let _proxy = Proxy::start(&Config { workers: all.len() + 1, ..Config::default() }).unwrap();
    let places: BTreeSet<_> = running(all.len() + 1).into_iter().collect();
    assert_eq!(places.len(), 1, "too many: the kernel shares them out");
}

/// Waits until there are so many: a new thread gets its name, and one that was joined leaves the list, a little later.
fn running(count: usize) -> Vec<String> {
    eventually("all workers have come or gone", || Some(workers()).filter(|found| found.len() == count))
}
