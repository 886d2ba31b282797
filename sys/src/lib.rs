//! What only this crate may do: unsafe code, netlink, namespaces, raw sockets. Owned descriptors go in and out, and
//! a kernel error always names the operation and the object it was for.

pub mod announce;
pub mod bpf;
pub mod datagram;
pub mod error;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod offload;
pub mod poll;
pub mod process;
pub mod processor;
pub mod seqpacket;
pub mod socket;
pub mod splice;
pub mod sysctl;

pub use error::KernelError;
