//! The command line.

pub(crate) mod run;
