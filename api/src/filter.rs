//! `--filter key=value` of lists, prune and events.
//!
//! Docker's rule: values of the same key are alternatives, different keys must all hold; labels must all hold.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::ApiError;
use crate::value::{Invalid, string_form};

/// One `key=value`; of a label filter the value is `KEY` or `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub key: String,
    pub value: String,
}

/// All filters of one request, with keys that the verb knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(Vec<Filter>);

impl Filters {
    /// Refuses a key that is not among `known`, naming those that are.
    pub fn new(filters: Vec<Filter>, known: &[&str]) -> Result<Self, ApiError> {
        match filters.iter().find(|filter| !known.contains(&filter.key.as_str())) {
            None => Ok(Self(filters)),
            Some(unknown) => Err(ApiError::invalid(format!("no filter {:?} here", unknown.key))
                .at("filter")
                .remedy(format!("use one of {}", known.join(", ")))),
        }
    }

    /// True if no filter has this key, or one that has is satisfied.
    pub fn any(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        let mut values = self.0.iter().filter(|filter| filter.key == key).peekable();
        values.peek().is_none() || values.any(|filter| holds(&filter.value))
    }

    /// True if every filter `label=KEY[=VALUE]` is satisfied and no `label!=...` is.
    #[must_use]
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.0.iter().all(|filter| match filter.key.as_str() {
            "label" => has(&filter.value),
            "label!" => !has(&filter.value),
            _ => true,
        })
    }
}

impl FromStr for Filter {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                Ok(Self { key: key.into(), value: value.into() })
            }
            _ => Err(Invalid::new("filter", text, "it has no key and value", "write KEY=VALUE")),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

string_form!(Filter, "KEY=VALUE");
