//! What the runtime says: the environment and the configuration on stdin, read into values that cannot be wrong.
//! Pure: nothing here looks at the machine.

mod args;
mod config;
mod env;
mod identity;
mod network;
mod node;
mod version;
mod wishes;

#[cfg(test)]
mod tests;

pub(crate) use args::Args;
pub(crate) use config::{Config, DEFAULT, Valid};
pub(crate) use env::{Command, Environment, Verb};
pub(crate) use identity::{hash, sandbox_name};
pub(crate) use node::Node;
pub(crate) use version::Version;
pub(crate) use wishes::{Dns, Wishes, bandwidth};
