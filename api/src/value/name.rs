//! Names of things. A sandbox's name becomes a file in `/run/netns` and a DNS label, so it is strict; a network's name
//! becomes only a DNS suffix, and Docker lets it be nearly anything, so it is liberal.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use super::{Alias, Invalid, string_form};

/// `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxName(String);

/// Printable, without spaces and slashes, at most 64 characters, not `host`, `none` or `container:...`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

/// How a request points at an existing network or sandbox: its id, its name, or a prefix of its id that is unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(String);

/// A network device's name as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(String);

/// `SANDBOX[:ALIAS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    pub sandbox: Reference,
    pub alias: Option<Alias>,
}

const LONGEST: usize = 64;

impl FromStr for SandboxName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: String| {
            Invalid::new(
                "sandbox name",
                text,
                cause,
                "use letters, digits, '_', '.' and '-', a letter or digit first",
            )
        };
        length(text).map_err(bad)?;
        if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err(bad("it does not begin with a letter or digit".into()));
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
            Some(c) => Err(bad(format!("{c:?} may not be in it"))),
            None => Ok(Self(text.into())),
        }
    }
}

impl FromStr for NetworkName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: String| Invalid::new("network name", text, cause, "choose another name");
        length(text).map_err(bad)?;
        printable(text).map_err(bad)?;
        if matches!(text, "host" | "none" | "." | "..") || text.starts_with("container:") {
            return Err(bad("it has a meaning of its own".into()));
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for Reference {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: String| {
            Invalid::new("name or id", text, cause, "give a name, an id or the beginning of an id")
        };
        length(text).map_err(bad)?;
        printable(text).map_err(bad)?;
        Ok(Self(text.into()))
    }
}

impl FromStr for LinkName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: &str| {
            Invalid::new("device name", text, cause, "use 1 to 15 letters, digits, '_', '.' or '-'")
        };
        if text.is_empty() || text.len() > 15 {
            return Err(bad("it is not 1 to 15 bytes long"));
        }
        if matches!(text, "." | "..")
            || text.chars().any(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(c)))
        {
            return Err(bad("the kernel does not take it"));
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for LinkSpec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (sandbox, alias) = match text.split_once(':') {
            Some((sandbox, alias)) => (sandbox, Some(alias)),
            None => (text, None),
        };
        Ok(Self { sandbox: sandbox.parse()?, alias: alias.map(str::parse).transpose()? })
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.alias {
            Some(alias) => write!(f, "{}:{alias}", self.sandbox),
            None => self.sandbox.fmt(f),
        }
    }
}

string_form!(LinkSpec, "SANDBOX[:ALIAS]");

macro_rules! text {
    ($type:ident, $description:literal) => {
        impl Deref for $type {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        string_form!($type, $description);
    };
}

text!(SandboxName, "1 to 64 letters, digits, '_', '.' and '-', a letter or digit first");
text!(NetworkName, "1 to 64 printable characters without space and slash; not host, none or container:...");
text!(Reference, "A name, an id, or a prefix of an id that is unique");
text!(LinkName, "1 to 15 letters, digits, '_', '.' and '-'");

fn length(text: &str) -> Result<(), String> {
    match text.chars().count() {
        0 => Err("it is empty".into()),
        n if n > LONGEST => Err(format!("it has {n} characters and may have {LONGEST}")),
        _ => Ok(()),
    }
}

fn printable(text: &str) -> Result<(), String> {
    match text.chars().find(|c| *c == '/' || c.is_whitespace() || c.is_control()) {
        Some(c) => Err(format!("{c:?} may not be in it")),
        None => Ok(()),
    }
}
