//! What a process may do: giving privileges up for good, a filter on system calls, and handles on other processes that
//! cannot be confused by a reused pid.

mod filter;
mod pidfd;
mod privileges;

pub use filter::restrict_system_calls;
pub use pidfd::PidFd;
pub use privileges::{Identity, raise_descriptor_limit, renounce_privileges, start_session};
