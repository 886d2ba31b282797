//! The environment: which verb, for which container and which interface.

use std::ffi::OsString;

use crate::error::{Code, Failure, Result};

#[derive(Debug)]
pub(crate) enum Command {
    /// Started by hand, or asked who it is.
    About,
    Version,
    Call(Verb, Environment),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

/// What belongs to one attachment; empty for verbs that are about none.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub container: String,
    /// May be empty with DEL.
    pub netns: String,
    pub interface: String,
    pub args: String,
    /// The plugin's own namespace is no mistake.
    pub own_netns: bool,
}

impl Command {
    pub(crate) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |key: &str| {
            let value = variable(key).unwrap_or_default().into_string();
            value.map_err(|raw| invalid(key, &raw.to_string_lossy(), "it is not UTF-8"))
        };
        let verb = match &*text("CNI_COMMAND")? {
            "" => return Ok(Self::About),
            "VERSION" => return Ok(Self::Version),
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            other => return Err(invalid("CNI_COMMAND", other, "there is no such command")),
        };
        let needed: &[&str] = match verb {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Verb::Gc | Verb::Status => return Ok(Self::Call(verb, Environment::default())),
        };
        let missing: Vec<&str> =
            needed.iter().copied().filter(|key| variable(key).is_none_or(|value| value.is_empty())).collect();
        if !missing.is_empty() {
            let message = format!("required env variables [{}] missing", missing.join(","));
            return Err(Failure::new(Code::InvalidEnvironment, message, "they are unset or empty"));
        }
        let environment = Environment {
            container: text("CNI_CONTAINERID")?,
            netns: text("CNI_NETNS")?,
            interface: text("CNI_IFNAME")?,
            args: text("CNI_ARGS")?,
            own_netns: matches!(&*text("CNI_NETNS_OVERRIDE")?, "1" | "true" | "TRUE" | "True"),
        };
        container(&environment.container)?;
        interface(&environment.interface)?;
        Ok(Self::Call(verb, environment))
    }
}

fn container(id: &str) -> Result<()> {
    let begins = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Ok(());
    }
    Err(invalid("CNI_CONTAINERID", id, "use letters, digits, '_', '.' and '-', a letter or digit first"))
}

/// The kernel's own rule.
fn interface(name: &str) -> Result<()> {
    let cause = if name.len() > 15 {
        "it is longer than 15 bytes"
    } else if matches!(name, "." | "..") {
        "the kernel does not take it"
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        "'/', ':' and white space may not be in it"
    } else {
        return Ok(());
    };
    Err(invalid("CNI_IFNAME", name, cause))
}

fn invalid(key: &str, value: &str, cause: &str) -> Failure {
    let shown: String = value.chars().take(80).collect();
    Failure::new(Code::InvalidEnvironment, format!("invalid {key}: {cause}"), format!("{key}={shown:?}"))
}
