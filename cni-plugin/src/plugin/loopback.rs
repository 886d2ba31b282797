//! `loopback`: brings `lo` up in the container's namespace and says which addresses it has. No daemon is needed.

use std::path::Path;

use netd_sys::netlink::{Rtnl, link};
use netd_sys::netns::Netns;
use serde_json::{Value, json};

use crate::error::{Code, Failure, Result};
use crate::spec::{Config, Environment, Verb, Version};
use crate::verbs::look_at_netns;

const LO: &str = "lo";

pub(super) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    match verb {
        Verb::Add => add(environment, config).map(Some),
        Verb::Del => del(environment).map(|()| None),
        Verb::Check => check(environment).map(|()| None),
        Verb::Gc | Verb::Status => Ok(None),
    }
}

fn add(environment: &Environment, config: &Config) -> Result<Value> {
    look_at_netns(environment)?;
    let netns = Netns::open(Path::new(&environment.netns)).map_err(|error| Failure::of_kernel(&error))?;
    let mut rtnl = Rtnl::open_in(&netns).map_err(|error| Failure::of_kernel(&error))?;
    rtnl.transact(vec![link::up(LO)]).map_err(|error| Failure::of_kernel(&error))?;
    if let Some(before) = config.prev_result()? {
        return Ok(super::chain::passed_on(before, config));
    }
    let mut result = json!({ "cniVersion": config.version.as_str() });
    if config.version < Version::V030 {
        result["ip4"] = json!({ "ip": "127.0.0.1/8" });
        return Ok(result);
    }
    result["interfaces"] = json!([{ "name": LO, "mac": "00:00:00:00:00:00", "sandbox": environment.netns }]);
    let lo = rtnl.link(LO).map_err(|error| Failure::of_kernel(&error))?.map(|found| found.index);
    let addresses = rtnl.addresses().map_err(|error| Failure::of_kernel(&error))?;
    let ips = addresses.into_iter().filter(|addr| Some(addr.link) == lo).map(|addr| {
        let mut ip = json!({ "interface": 0, "address": addr.address.to_string() });
        if config.version < Version::V100 {
            ip["version"] = if addr.address.is_ipv4() { "4" } else { "6" }.into();
        }
        ip
    });
    result["ips"] = ips.collect::<Vec<_>>().into();
    Ok(result)
}

fn del(environment: &Environment) -> Result<()> {
    let Some(netns) = super::namespace_if_there(environment) else { return Ok(()) };
    let mut rtnl = Rtnl::open_in(&netns).map_err(|error| Failure::of_kernel(&error))?;
    rtnl.transact(vec![link::down(LO)]).map_err(|error| Failure::of_kernel(&error))
}

fn check(environment: &Environment) -> Result<()> {
    look_at_netns(environment)?;
    let netns = Netns::open(Path::new(&environment.netns)).map_err(|error| Failure::of_kernel(&error))?;
    let mut rtnl = Rtnl::open_in(&netns).map_err(|error| Failure::of_kernel(&error))?;
    let lo = rtnl.link(LO).map_err(|error| Failure::of_kernel(&error))?;
    if lo.is_some_and(|lo| lo.up) {
        return Ok(());
    }
    Err(Failure::new(Code::Wrong, "the loopback device is down", format!("in {}", environment.netns)))
}
