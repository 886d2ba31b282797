//! Names that go into DNS, and words that go into resolv.conf and hosts: none may bring a space or a line of its own.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use super::{Invalid, string_form};

/// A host name as the kernel and RFC 1123 take it, at most 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(String);

/// One more name of a sandbox on a network, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias(String);

/// A domain for the `search` line; `.` stands for none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchDomain(String);

/// A word of the `options` line, as `ndots:2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResolvOption(String);

impl FromStr for Hostname {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |cause: String| Invalid::new("hostname", text, cause, "use letters, digits, '-' and '.'");
        if text.len() > 64 {
            return Err(bad("it has more than 64 characters".into()));
        }
        domain(text, |c| c.is_ascii_alphanumeric() || c == '-').map_err(bad)?;
        if text.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
            return Err(bad("a part begins or ends with '-'".into()));
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for Alias {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        domain(text, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            .map_err(|cause| Invalid::new("alias", text, cause, "use letters, digits, '-', '_' and '.'"))?;
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl FromStr for SearchDomain {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let name = if text == "." { "root" } else { text.strip_suffix('.').unwrap_or(text) };
        domain(name, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_').map_err(|cause| {
            Invalid::new("search domain", text, cause, "use a domain name, or '.' for none")
        })?;
        Ok(Self(text.into()))
    }
}

impl FromStr for ResolvOption {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > 64 || text.bytes().any(|b| !b.is_ascii_graphic()) {
            let cause = "it is not one word of at most 64 characters";
            return Err(Invalid::new(
                "resolver option",
                text,
                cause,
                "use an option of resolv.conf, as ndots:2",
            ));
        }
        Ok(Self(text.into()))
    }
}

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

text!(Hostname, "Letters, digits, '-' and '.', at most 64 characters");
text!(Alias, "Letters, digits, '-', '_' and '.', at most 63 characters a part");
text!(SearchDomain, "A domain name, or '.' for none");
text!(ResolvOption, "An option of resolv.conf, as ndots:2");

/// RFC 1035 lengths: 63 a label, 253 in all; no label empty.
fn domain(text: &str, allowed: fn(char) -> bool) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > 253 {
        return Err("it has more than 253 characters".into());
    }
    if let Some(c) = text.chars().find(|c| !(allowed(*c) || *c == '.')) {
        return Err(format!("{c:?} may not be in it"));
    }
    if text.split('.').any(str::is_empty) {
        return Err("there is nothing between two dots, or at an end".into());
    }
    match text.split('.').find(|label| label.len() > 63) {
        Some(label) => Err(format!("a part has {} characters and may have 63", label.len())),
        None => Ok(()),
    }
}
