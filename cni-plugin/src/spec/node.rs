//! A value of the configuration with the path that leads to it, read as Go's decoder would: keys in any case, `null`
//! as absent. A refusal names the path.

use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::error::{Code, Failure, Result};

#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    pub(crate) fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.mistyped("an object"))
    }

    /// The exact key before one that differs in case.
    pub(crate) fn member(&self, key: &str) -> Result<Option<Self>> {
        let object = self.object()?;
        let found = object
            .get(key)
            .or_else(|| object.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, v)| v));
        Ok(found.filter(|value| !value.is_null()).map(|value| Self { path: self.below(key), value }))
    }

    /// Through objects that may all be absent.
    pub(crate) fn at(&self, keys: &[&str]) -> Result<Option<Self>> {
        let mut node = self.clone();
        for key in keys {
            match node.member(key)? {
                Some(member) => node = member,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    pub(crate) fn items(&self) -> Result<impl Iterator<Item = Self> + use<'a>> {
        let items = self.value.as_array().ok_or_else(|| self.mistyped("an array"))?;
        let path = self.path.clone();
        let nodes = items.iter().enumerate();
        Ok(nodes.map(move |(index, value)| Self { path: format!("{path}[{index}]"), value }))
    }

    pub(crate) fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.mistyped("a string"))
    }

    /// Booleans come as strings too.
    pub(crate) fn flag(&self) -> Result<bool> {
        match self.value {
            Value::Bool(flag) => Ok(*flag),
            Value::String(text) if text == "true" => Ok(true),
            Value::String(text) if text == "false" => Ok(false),
            _ => Err(self.mistyped("true or false")),
        }
    }

    /// Numbers come as strings too.
    pub(crate) fn number<T: TryFrom<u64>>(&self) -> Result<T> {
        let number = match self.value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.mistyped("a number in its range"))
    }

    pub(crate) fn parse<T: FromStr<Err: Display>>(&self) -> Result<T> {
        self.text()?.parse().map_err(|error| self.invalid(&error))
    }

    pub(crate) fn invalid(&self, cause: &impl Display) -> Failure {
        Failure::new(Code::InvalidConfig, format!("{} is not valid", self.name()), cause.to_string())
    }

    pub(crate) fn unsupported(&self, remedy: &str) -> Failure {
        let message = format!("unsupported field {}: {}", self.name(), shown(self.value));
        Failure::new(Code::UnsupportedField, message, remedy)
    }

    fn mistyped(&self, wanted: &str) -> Failure {
        self.invalid(&format!("it should be {wanted}, not {}", shown(self.value)))
    }

    fn name(&self) -> &str {
        if self.path.is_empty() { "the configuration" } else { &self.path }
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}
