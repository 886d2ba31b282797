//! `tuning`: sysctls of the container's namespace, and settings of one of its devices. What was there before is kept in a
//! file and put back by DEL. No daemon is needed: nobody but the container is concerned.

mod settings;
mod sysctls;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netd_api::value::Mac;
use netd_sys::netlink::Rtnl;
use netd_sys::netns::Netns;
use netd_sys::sysctl;
use serde_json::{Map, Value, json};

use self::settings::Settings;
use self::sysctls::Sysctl;
use super::chain::{before, passed_on, text};
use crate::error::{Code, Failure, Result};
use crate::spec::{Args, Config, Environment, Verb, Version};
use crate::verbs::look_at_netns;

const NAME: &str = "tuning";
const ALLOWLIST: &str = "/etc/cni/tuning/allowlist.conf";
const DEFAULT_FOLDER: &str = "/run/cni/tuning";

pub(super) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    match verb {
        Verb::Add => add(environment, config).map(Some),
        Verb::Del => del(environment, config).map(|()| None),
        Verb::Check => check(environment, config).map(|()| None),
        Verb::Gc | Verb::Status => Ok(None),
    }
}

pub(super) struct Wanted {
    sysctls: Vec<Sysctl>,
    settings: Settings,
}

impl Wanted {
    /// A MAC address from `CNI_ARGS` gives way to the configuration's, that to the capability's, and all of them to
    /// the one in `args`.
    pub(super) fn read(config: &Config, environment: &Environment) -> Result<Self> {
        let root = config.root();
        let given =
            root.member("sysctl")?.map(|node| sysctls::read(&node, &environment.interface)).transpose()?;
        let sysctls = given.unwrap_or_default();
        sysctls::allowed(&sysctls, Path::new(ALLOWLIST))?;
        let mut settings = Settings::read(&root)?;
        let by_args = Args::read(&environment.args)?.mac.map(|text| {
            text.parse::<Mac>().map_err(|error| {
                Failure::new(Code::InvalidEnvironment, "invalid MAC in CNI_ARGS", error.to_string())
            })
        });
        let mut mac = by_args.transpose()?;
        for path in [&["mac"][..], &["runtimeConfig", "mac"], &["args", "cni", "mac"]] {
            if let Some(node) = root.at(path)?.filter(super::chain::is_set) {
                mac = Some(node.parse()?);
            }
        }
        settings.mac = mac.map(Mac::octets);
        Ok(Self { sysctls, settings })
    }
}

fn add(environment: &Environment, config: &Config) -> Result<Value> {
    let before = before(config, NAME)?;
    let wanted = Wanted::read(config, environment)?;
    let result = told(passed_on(before, config), &wanted.settings, environment, config.version);
    if wanted.sysctls.is_empty() && wanted.settings.is_empty() {
        return Ok(result);
    }
    look_at_netns(environment)?;
    let netns = Netns::open(Path::new(&environment.netns)).map_err(|error| Failure::of_kernel(&error))?;
    let mut rtnl = Rtnl::open_in(&netns).map_err(|error| Failure::of_kernel(&error))?;
    let saved = saved(&netns, &mut rtnl, &wanted, &environment.interface)?;
    let file = file(config, environment)?;
    // On disk before the first change: whenever this process ends, DEL knows the way back.
    keep(&file, &saved)?;
    apply(&netns, &mut rtnl, &wanted.sysctls, &wanted.settings, &environment.interface).inspect_err(
        |_| {
            super::chain::told(restore(&file, &netns, &environment.interface));
        },
    )?;
    Ok(result)
}

/// What will be changed, as it is.
fn saved(netns: &Netns, rtnl: &mut Rtnl, wanted: &Wanted, interface: &str) -> Result<Value> {
    let mut sysctls = Map::new();
    for one in &wanted.sysctls {
        let value = sysctl::read_in(netns, &one.key).map_err(|error| Failure::of_kernel(&error))?;
        sysctls.insert(one.key.clone(), value.into());
    }
    let mut saved = json!({ "sysctl": sysctls });
    if !wanted.settings.is_empty() {
        saved["link"] = wanted.settings.as_found(&settings::look(rtnl, interface)?).to_json();
    }
    Ok(saved)
}

fn apply(
    netns: &Netns,
    rtnl: &mut Rtnl,
    sysctls: &[Sysctl],
    settings: &Settings,
    interface: &str,
) -> Result<()> {
    for one in sysctls {
        sysctl::write_in(netns, &one.key, &one.value).map_err(|error| Failure::of_kernel(&error))?;
    }
    settings.apply(rtnl, interface)
}

/// What is written first stays: a second ADD would otherwise save what the first has set.
fn keep(file: &Path, saved: &Value) -> Result<()> {
    let failed = |error: io::Error| {
        let message = format!("cannot note what was set before in {}", file.display());
        Failure::new(Code::Io, message, error.to_string())
    };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let draft = file.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&draft, saved.to_string()).map_err(failed)?;
    let linked = fs::hard_link(&draft, file);
    fs::remove_file(&draft).map_err(failed)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

/// A namespace or a device that is gone has taken its settings along.
fn del(environment: &Environment, config: &Config) -> Result<()> {
    let file = file(config, environment)?;
    match super::namespace_if_there(environment) {
        Some(netns) => super::chain::told(restore(&file, &netns, &environment.interface)),
        None => forget(&file),
    }
    Ok(())
}

/// Total: what cannot be put back is told and does not keep the rest.
fn restore(file: &Path, netns: &Netns, interface: &str) -> Result<()> {
    let Ok(text) = fs::read(file) else { return Ok(()) };
    forget(file);
    let saved: Value = serde_json::from_slice(&text).unwrap_or_default();
    let sysctls = saved["sysctl"].as_object().into_iter().flatten();
    for (key, value) in sysctls.filter_map(|(key, value)| Some((key, value.as_str()?))) {
        if let Err(error) = sysctl::write_in(netns, key, value) {
            eprintln!("netd-cni: {}", Failure::of_kernel(&error).message);
        }
    }
    let mut rtnl = Rtnl::open_in(netns).map_err(|error| Failure::of_kernel(&error))?;
    match Settings::from_json(&saved["link"]) {
        settings if settings.is_empty() => Ok(()),
        settings => settings.apply(&mut rtnl, interface),
    }
}

fn forget(file: &Path) {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("netd-cni: cannot remove {}: {error}", file.display());
        }
        _ => {}
    }
}

fn check(environment: &Environment, config: &Config) -> Result<()> {
    before(config, NAME)?;
    let wanted = Wanted::read(config, environment)?;
    look_at_netns(environment)?;
    let netns = Netns::open(Path::new(&environment.netns)).map_err(|error| Failure::of_kernel(&error))?;
    let wrong = |message: String| Failure::new(Code::Wrong, message, format!("in {}", environment.netns));
    for Sysctl { key, value } in &wanted.sysctls {
        let found = sysctl::read_in(&netns, key).map_err(|error| Failure::of_kernel(&error))?;
        if !found.split_whitespace().eq(value.split_whitespace()) {
            return Err(wrong(format!("the sysctl {key} is {found}, not {value}")));
        }
    }
    if wanted.settings.is_empty() {
        return Ok(());
    }
    let mut rtnl = Rtnl::open_in(&netns).map_err(|error| Failure::of_kernel(&error))?;
    let found = wanted.settings.as_found(&settings::look(&mut rtnl, &environment.interface)?);
    if found == wanted.settings {
        return Ok(());
    }
    let (found, wanted) = (found.to_json(), wanted.settings.to_json());
    Err(wrong(format!("{} is set to {found}, not {wanted}", environment.interface)))
}

/// The result with what has changed of the container's own device.
fn told(mut result: Value, settings: &Settings, environment: &Environment, version: Version) -> Value {
    let interfaces = result.get_mut("interfaces").and_then(Value::as_array_mut);
    for interface in interfaces.into_iter().flatten() {
        let is_own = interface["name"] == environment.interface.as_str()
            && interface["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty());
        if !is_own {
            continue;
        }
        if let Some(mac) = settings.mac {
            interface["mac"] = settings::mac_text(mac).into();
        }
        if let Some(mtu) = settings.mtu.filter(|_| version >= Version::V110) {
            interface["mtu"] = mtu.into();
        }
    }
    result
}

fn file(config: &Config, environment: &Environment) -> Result<PathBuf> {
    let root = config.root();
    let folder = Path::new(text(&root, "dataDir")?.unwrap_or(DEFAULT_FOLDER));
    Ok(folder.join(format!("{}_{}.json", environment.container, environment.interface)))
}

#[cfg(test)]
mod tests;
