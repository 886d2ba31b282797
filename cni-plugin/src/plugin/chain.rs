//! What plugins behind the first of a chain share: the result of those before, handed on with all that was in it, and
//! the container that netd has attached.

use netd_api::sandbox::Sandbox;
use serde_json::{Map, Value};

use crate::daemon::Daemon;
use crate::error::{Code, Failure, Result};
use crate::spec::{Config, Environment, Node, sandbox_name};

/// A plugin that makes no interface has to be chained.
pub(super) fn before<'a>(config: &'a Config, plugin: &str) -> Result<&'a Map<String, Value>> {
    config.prev_result()?.ok_or_else(|| {
        let details = "put it behind the plugin that makes the interface, in the list `plugins`";
        Failure::new(Code::InvalidConfig, format!("{plugin} must be called as a chained plugin"), details)
    })
}

/// The result of those before as this plugin's own.
pub(super) fn passed_on(before: &Map<String, Value>, config: &Config) -> Value {
    let mut result = before.clone();
    result.insert("cniVersion".into(), config.version.as_str().into());
    result.into()
}

/// The container, put on the network by netd's bridge or by netd-cni.
pub(super) fn attached(
    daemon: &Daemon,
    config: &Config,
    environment: &Environment,
    plugin: &str,
) -> Result<Sandbox> {
    let found = daemon.sandbox(&sandbox_name(&environment.container)?)?;
    found.filter(|sandbox| sandbox.network_settings.networks.contains_key(&*config.network)).ok_or_else(
        || {
            let message = format!("netd has not attached this container to the network {}", config.network);
            let details =
                format!("netd's {plugin} works behind netd's own bridge (or netd-cni) in the same chain");
            Failure::new(Code::InvalidConfig, message, details)
        },
    )
}

/// Refuses a key that is set to anything but nothing.
pub(super) fn refuse(root: &Node<'_>, key: &str, remedy: &str) -> Result<()> {
    match root.member(key)?.filter(is_set) {
        Some(node) => Err(node.unsupported(remedy)),
        None => Ok(()),
    }
}

pub(super) fn is_set(node: &Node<'_>) -> bool {
    match node.value() {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty() && text != "false",
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

pub(super) fn flag(root: &Node<'_>, key: &str) -> Result<bool> {
    Ok(root.member(key)?.map(|node| node.flag()).transpose()?.unwrap_or(false))
}

/// A string that is not empty.
pub(super) fn text<'a>(root: &Node<'a>, key: &str) -> Result<Option<&'a str>> {
    let text = root.member(key)?.map(|node| node.text()).transpose()?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// The chained plugins' DEL never keeps a container from going: the bridge's own DEL takes all of it away, and leaves a
/// note where the daemon is away.
pub(super) fn told(result: Result<()>) {
    if let Err(failure) = result {
        eprintln!("netd-cni: {}: {}", failure.message, failure.details);
    }
}
