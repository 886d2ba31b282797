//! netd's API: every verb declared once, with its path, its types and its errors.
//!
//! The server routes by these declarations, the command line and the CNI plugin call through them, and the OpenAPI
//! document is made of them. A new verb goes into the file of its noun and into [`verb::all`]; nothing else here
//! changes. This crate knows nothing of the kernel and nothing of the daemon.
//!
//! Names in JSON: bodies about networks, sandboxes and services use Docker's field names (`EnableIPv6`, `IPAddress`), everything
//! else, path parameters and query parameters use `snake_case`. Requests refuse fields they do not know.

pub mod client;
pub mod cluster;
pub mod dns;
pub mod error;
pub mod events;
pub mod filter;
pub mod network;
pub mod node;
pub mod openapi;
pub mod sandbox;
pub mod service;
pub mod spool;
pub mod stats;
pub mod system;
pub mod value;
pub mod verb;
pub mod wire;

pub use error::{ApiError, Code, Problem};
pub use filter::{Filter, Filters};
pub use verb::{Answer, Declaration, Method, Nothing, Verb};
