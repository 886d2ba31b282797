//! netd as a plugin of netavark: under the name `netd` in a folder of `netavark_plugin_dirs`, for
//! `podman network create -d netd`. The deed is the first argument, the namespace the second, JSON goes in and out.
//!
//! podman leases the addresses and keeps the network's definition; netd's network is made by the first setup and goes
//! with its last container.

mod network;
pub(crate) mod request;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use netd_api::client::DEFAULT_SOCKET;
use netd_api::network::ListParams;
use netd_api::network::Prune;
use netd_api::sandbox::EndpointSettings;
use netd_api::{Filter, Nothing};
use serde_json::{Map, Value, json};

use self::request::Request;
use crate::daemon::Daemon;
use crate::error::{Code, Failure, Result};
use crate::process::input;
use crate::spec::{Verb, sandbox_name};
use crate::verbs::add::{Add, ensure_network};
use crate::verbs::{look_at_netns, run_with};

/// `None` if it was not netavark, or podman, that called.
pub(crate) fn called(program: &OsStr, mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let name = Path::new(program).file_name().unwrap_or_default();
    let deed = arguments.next().filter(|_| NAMES.iter().any(|own| name == *own))?;
    let done = match &*deed.to_string_lossy() {
        "info" => Ok(Some(json!({ "version": env!("CARGO_PKG_VERSION"), "api_version": "1.0.0" }))),
        "create" => stdin().and_then(|given| network::create(&given)).map(Some),
        "setup" => setup(arguments.next()).map(Some),
        "teardown" => teardown(arguments.next()).map(|()| None),
        other => {
            let message = format!("there is no {other:?}: use info, create, setup or teardown");
            Err(Failure::new(Code::InvalidEnvironment, message, "given as the first argument"))
        }
    };
    Some(ended(done))
}

/// What netavark shows its user is the text under `error`.
fn ended(done: Result<Option<Value>>) -> ExitCode {
    let (said, code) = match done {
        Ok(said) => (said, ExitCode::SUCCESS),
        Err(failure) => {
            let text = format!("netd: {}: {}", failure.message, failure.details);
            (Some(json!({ "error": text })), ExitCode::FAILURE)
        }
    };
    match said.map_or(Ok(()), |said| writeln!(io::stdout().lock(), "{said}")) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn stdin() -> Result<Value> {
    serde_json::from_slice(&input()?)
        .map_err(|error| Failure::new(Code::Decoding, "what came on stdin is not JSON", error.to_string()))
}

fn setup(netns: Option<OsString>) -> Result<Value> {
    let given = stdin()?;
    let request = Request::read(&given)?;
    let environment = request::environment(&given, &text(netns)?)?;
    look_at_netns(&environment)?;
    let daemon = Daemon::at(&request.socket)?;
    let name = sandbox_name(&environment.container)?;
    let owner = request::as_config(&given)?.owner();
    // A network that people have made by hand under that name is used as it is.
    let network = ensure_network(&daemon, &request.network.name, || Ok(request.network.clone()))?;
    let add = Add {
        daemon: &daemon,
        environment: &environment,
        owner,
        interface: request.interface.clone(),
        wishes: request.wishes,
        name,
        network,
    };
    let (settings, _) = add.attach()?;
    Ok(status(&settings, request.has_names))
}

fn status(settings: &EndpointSettings, has_names: bool) -> Value {
    let subnet = |ip: &str, prefix: u8, gateway: &str| {
        let mut subnet = json!({ "ipnet": format!("{ip}/{prefix}") });
        if !gateway.is_empty() {
            subnet["gateway"] = gateway.into();
        }
        (!ip.is_empty()).then_some(subnet)
    };
    let v4 = subnet(&settings.ip_address, settings.ip_prefix_len, &settings.gateway);
    let v6 = subnet(&settings.global_ipv6_address, settings.global_ipv6_prefix_len, &settings.ipv6_gateway);
    let subnets: Vec<Value> = v4.into_iter().chain(v6).collect();
    let interface = json!({ "mac_address": settings.mac_address, "subnets": subnets });
    let mut interfaces = Map::new();
    interfaces.insert(settings.interface.clone(), interface);
    let (servers, domains): (&[&str], &[&str]) =
        if has_names { (&["127.0.0.11"], &[request::DOMAIN]) } else { (&[], &[]) };
    json!({ "interfaces": interfaces, "dns_server_ips": servers, "dns_search_domains": domains })
}

/// Total, as DEL is: what is gone is gone, and while the daemon is away a note is left for it.
fn teardown(netns: Option<OsString>) -> Result<()> {
    let given = stdin()?;
    let environment = request::environment(&given, &text(netns).unwrap_or_default())?;
    let config = request::as_config(&given)?;
    run_with(Verb::Del, &environment, &config, |_| Ok(Value::Null))?;
    if let Ok(daemon) = Daemon::at(&config.socket) {
        let filter = Filter { key: "label".into(), value: format!("{}={}", request::LABEL, config.name) };
        // The container is off; a network that stays is found again by the next setup.
        let _ = daemon.call::<Prune>(&ListParams { filter: vec![filter] }, &Nothing {});
    }
    Ok(())
}

fn text(argument: Option<OsString>) -> Result<String> {
    argument.and_then(|argument| argument.into_string().ok()).ok_or_else(|| {
        let details = "give its path as the second argument";
        Failure::new(Code::InvalidEnvironment, "the container's namespace is missing", details)
    })
}

fn default_socket() -> PathBuf {
    std::env::var_os("NETD_SOCKET").map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

const NAMES: [&str; 2] = ["netd", "netavark-netd"];
