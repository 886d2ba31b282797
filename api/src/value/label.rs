//! `KEY=VALUE` as it is written on a command line; in JSON such pairs are members of an object.

use std::str::FromStr;

use super::Invalid;

/// A label, or a driver option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = Invalid;

    /// Docker takes `KEY` for `KEY=`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() || key.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Invalid::new("label", text, "its key is empty or has a space", "write KEY=VALUE"));
        }
        Ok(Self { key: key.into(), value: value.into() })
    }
}
