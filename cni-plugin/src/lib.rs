//! The CNI plugin. A runtime starts it anew for every container, with the deed in the environment and the configuration
//! on stdin; it makes a call or two to the daemon and ends. Nothing is kept here but tombstones of containers that left
//! while the daemon was away (`spool`).
//!
//! ```text
//! process (environment, stdin, stdout) -> spec (pure: what is asked for) -> verbs -> daemon (api) -> result (pure)
//!                                      -> plugin (the names of reference plugins) -> verbs, or sys
//! ```

mod daemon;
mod error;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod plugin;
mod process;
mod result;
mod spec;
mod spool;
mod verbs;

pub use process::main;
