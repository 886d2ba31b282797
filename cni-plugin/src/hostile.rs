//! The door that strangers' bytes come in through, as a function of bytes alone: the environment and the configuration
//! that a runtime passes on, from which everything is read that any verb could ask for. The fuzz target and the property
//! test walk the same way in; what they find is a panic, or a claim below that does not hold.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use netd_api::sandbox::EndpointSettings;
use serde_json::Value;

use crate::error::Failure;
use crate::plugin;
use crate::plugin::netavark::request::{self, Request};
use crate::result::{Attached, WayOut, addresses_of};
use crate::spec::{Command, Config, Environment, Version, Wishes, sandbox_name};

/// `KEY=VALUE` lines, an empty line, stdin.
pub fn call(input: &[u8]) {
    let cut = input.windows(2).position(|two| two == b"\n\n");
    let (variables, stdin) = cut.map_or((&b""[..], input), |cut| (&input[..cut], &input[cut + 2..]));
    let environment = match Command::read(|key| variable(variables, key)) {
        Ok(Command::Call(_, environment)) => environment,
        Ok(Command::About | Command::Version) => Environment::default(),
        Err(failure) => {
            refused(&failure);
            Environment::default()
        }
    };
    match Config::read(stdin) {
        Ok(config) => all_of(&config, &environment),
        Err(failure) => refused(&failure),
    }
    netavark(stdin);
}

fn variable(lines: &[u8], key: &str) -> Option<OsString> {
    lines.split(|byte| *byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
        Some(OsString::from_vec(value.to_vec()))
    })
}

/// What netavark says in the place of a runtime.
fn netavark(stdin: &[u8]) {
    let Ok(given) = serde_json::from_slice(stdin) else { return };
    let _ = Request::read(&given).inspect_err(refused);
    let _ = request::as_config(&given).inspect_err(refused);
    if let Ok(environment) = request::environment(&given, "/run/netns/web").inspect_err(refused) {
        let _ = sandbox_name(&environment.container).inspect_err(refused);
    }
}

fn all_of(config: &Config, environment: &Environment) {
    if !environment.container.is_empty() {
        sandbox_name(&environment.container).expect("every id that is let in has a sandbox's name");
    }
    let _ = config.create_network().inspect_err(refused);
    let _ = config.valid_attachments().inspect_err(refused);
    plugin::read_as_all(config, environment).iter().for_each(refused);
    let before = config.prev_result().inspect_err(refused).ok().flatten();
    if let Some(before) = before {
        let _ = addresses_of(before, &environment.interface);
    }
    let wishes = match Wishes::read(config, environment) {
        Ok(wishes) => wishes,
        Err(failure) => return refused(&failure),
    };
    let settings =
        EndpointSettings { interface: "eth0".into(), ip_address: "10.0.0.2".into(), ..Default::default() };
    let attached = Attached {
        settings: &settings,
        netns: &environment.netns,
        mtu: None,
        way_out: WayOut { v4: true, v6: true },
        dns: &wishes.dns,
    };
    let result = attached.result(config.version, before);
    assert_eq!(result["cniVersion"], config.version.as_str(), "a result is in the caller's version");
}

/// What a runtime is told is an object of the specification, and one line.
fn refused(failure: &Failure) {
    let object = failure.object(Version::NEWEST);
    assert!(object["code"].as_u64().is_some_and(|code| code > 0) && object["msg"].is_string(), "{object}");
    let line = object.to_string();
    assert!(!line.contains('\n'), "{line}");
    assert_eq!(serde_json::from_str::<Value>(&line).expect("what was written can be read"), object);
}

#[cfg(test)]
mod tests;
