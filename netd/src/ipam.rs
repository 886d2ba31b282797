//! Who gets which subnet and which address. Pure: what is taken comes in as arguments, what is given out is returned.
//!
//! A network's creation goes request -> [`plan`] -> subnets of the record; an attach goes [`Leases::lease`] or
//! [`Leases::reserve`] -> address of the endpoint, a service's address goes [`Leases::lease_vip`]. Nothing is remembered beside the records: [`Leases::rebuild`] makes
//! the same table from them after a restart.

mod band;
mod error;
mod host;
mod leases;
mod plan;
mod pools;
mod runs;
mod span;
mod walk;

pub(crate) use error::IpamError;
pub(crate) use host::HostUse;
pub(crate) use leases::{Holder, Leases};
pub(crate) use plan::{SubnetRequest, plan, plan_one};
pub(crate) use pools::{Pool, Pools};
pub(crate) use span::Family;
pub(crate) use walk::{check_address, next_free};

#[cfg(test)]
mod tests;
