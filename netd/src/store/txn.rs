//! What one commit checks and writes.

use std::collections::BTreeMap;

use super::{Key, Revision, Value};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Txn {
    checks: Vec<Check>,
    /// One write per key: a value, or nothing to delete it.
    writes: BTreeMap<Key, Option<Value>>,
}

/// The commit goes through only while the key is at this revision, or absent where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub key: Key,
    pub revision: Option<Revision>,
}

impl Txn {
    pub(crate) fn expect(mut self, key: impl Into<Key>, revision: Revision) -> Self {
        self.checks.push(Check { key: key.into(), revision: Some(revision) });
        self
    }

    pub(crate) fn expect_absent(mut self, key: impl Into<Key>) -> Self {
        self.checks.push(Check { key: key.into(), revision: None });
        self
    }

    pub(crate) fn put(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        self.writes.insert(key.into(), Some(value.into()));
        self
    }

    /// Deleting what is not there is no error and no change.
    pub(crate) fn delete(mut self, key: impl Into<Key>) -> Self {
        self.writes.insert(key.into(), None);
        self
    }

    /// Both, or neither.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.checks.extend(other.checks);
        self.writes.extend(other.writes);
        self
    }

    pub(crate) fn checks(&self) -> &[Check] {
        &self.checks
    }

    pub(crate) fn writes(&self) -> impl Iterator<Item = (&Key, Option<&Value>)> {
        self.writes.iter().map(|(key, value)| (key, value.as_ref()))
    }
}
