//! `bridge`: a netd network per configuration, with the configuration's subnets, gateway and device name. Addresses come
//! from the daemon: an `ipam` of type `host-local` says which, and is not run.
//!
//! The network is made by the first ADD and goes with its last container, so that nothing of it outlives the
//! configuration that a runtime deletes. Networks that people have made by `netd network create` are used and stay.

mod inside;
mod network;
mod wanted;

use std::path::Path;

use netd_api::sandbox::EndpointSettings;
use netd_sys::netlink::Rtnl;
use netd_sys::netns::Netns;
use serde_json::{Value, json};

pub(super) use self::wanted::Wanted;
use crate::daemon::Daemon;
use crate::error::{Code, Failure, Result};
use crate::result::{Attached, WayOut};
use crate::spec::{Config, Environment, Verb, Version, Wishes, sandbox_name};
use crate::verbs::add::Add;
use crate::verbs::{attachment, interface, look_at_netns, run_with};

pub(super) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    if verb == Verb::Check {
        let wanted = Wanted::read(config)?;
        run_with(verb, environment, config, |_| Ok(Value::Null))?;
        return inside::check(environment, &wanted).map(|()| None);
    }
    let done = run_with(verb, environment, config, |daemon| add(daemon, config, environment))?;
    if matches!(verb, Verb::Del | Verb::Gc) {
        network::remove_unused(config);
    }
    Ok(done)
}

fn add(daemon: &Daemon, config: &Config, environment: &Environment) -> Result<Value> {
    let wanted = Wanted::read(config)?;
    let Wishes { v4, v6, mac, .. } = Wishes::read(config, environment)?;
    let wishes = Wishes { v4, v6, mac, ..Wishes::default() };
    let interface = interface(environment)?;
    look_at_netns(environment)?;
    let name = sandbox_name(&environment.container)?;
    let network = network::ensure(daemon, config, &wanted)?;
    let (owner, device, mtu) = (config.owner(), network.device.clone(), network.mtu);
    let mut add = Add { daemon, owner, environment, wishes, interface, name, network };
    let (settings, given) = attach(&mut add, config, &wanted)?;
    let device = device.map_or_else(String::new, |device| device.to_string());
    let finished = inside::routes(environment, &settings, &wanted)
        .and_then(|()| result(config, environment, &settings, &device, mtu, &wanted, given));
    finished.inspect_err(|_| {
        super::chain::told(attachment(config, environment).and_then(|own| daemon.detach(&own)));
    })
}

/// The network goes with its last container, which may leave between the look at the network and the attachment.
fn attach(add: &mut Add<'_>, config: &Config, wanted: &Wanted) -> Result<(EndpointSettings, WayOut)> {
    for _ in 0..ATTEMPTS {
        match add.attach() {
            Err(failure) if failure.code == Code::TryAgain => {
                let now = network::ensure(add.daemon, config, wanted)?;
                if now.id == add.network.id {
                    return Err(failure);
                }
                add.network = now;
            }
            done => return done,
        }
    }
    add.attach()
}

/// The bridge, the host's end, the container's end; addresses belong to the third.
fn result(
    config: &Config,
    environment: &Environment,
    settings: &EndpointSettings,
    bridge: &str,
    mtu: Option<u32>,
    wanted: &Wanted,
    given: WayOut,
) -> Result<Value> {
    // Names are told by the plugin dnsname, if that is in the chain.
    let settings = EndpointSettings { dns_names: Vec::new(), ..settings.clone() };
    let netns = &environment.netns;
    let attached = Attached { settings: &settings, netns, mtu, way_out: given, dns: &wanted.dns };
    if config.version < Version::V030 {
        return Ok(attached.result(config.version, None));
    }
    let mut rtnl = Rtnl::open().map_err(|error| Failure::of_kernel(&error))?;
    let mut mac = |device: &str| {
        let found = rtnl.link(device).map_err(|error| Failure::of_kernel(&error))?;
        Ok::<_, Failure>(found.and_then(|link| link.mac).map(mac_text).unwrap_or_default())
    };
    let mut first = json!({ "name": bridge, "mac": mac(bridge)? });
    if let Some(mtu) = mtu.filter(|_| config.version >= Version::V110) {
        first["mtu"] = mtu.into();
    }
    let before = json!({ "interfaces": [first] });
    let mut result = attached.result(config.version, before.as_object());
    result["interfaces"][1]["mac"] = mac(&settings.host_interface)?.into();
    let routes = wanted.routes.iter().map(|route| route.told.clone());
    if let Some(list) = result["routes"].as_array_mut() {
        list.extend(routes);
    } else if !wanted.routes.is_empty() {
        result["routes"] = routes.collect::<Vec<_>>().into();
    }
    if result["routes"].is_null() {
        result.as_object_mut().map(|members| members.remove("routes"));
    }
    Ok(result)
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The container's namespace.
fn namespace(environment: &Environment) -> Result<Netns> {
    Netns::open(Path::new(&environment.netns)).map_err(|error| Failure::of_kernel(&error))
}

const ATTEMPTS: usize = 16;
