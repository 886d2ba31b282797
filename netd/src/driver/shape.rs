//! An endpoint's rates. Towards the sandbox a token bucket on the host's end of its pair; what the sandbox sends is led
//! through a device of its own, which has a bucket too. Both are in the host, where no sandbox can change them.

use netd_sys::KernelError;
use netd_sys::netlink::Rtnl;
use netd_sys::netlink::link;
use netd_sys::netlink::qdisc::{self, Bucket};
use nix::libc;

use super::GROUP;
use crate::model::{Endpoint, Rate};

/// The device that an endpoint's own traffic is led through, if it has one.
pub(crate) fn device(endpoint: &Endpoint) -> Option<String> {
    endpoint.bandwidth.egress.map(|_| format!("{}i", endpoint.host_link))
}

/// Makes the rates what the record says; can be repeated.
pub(super) fn apply(rtnl: &mut Rtnl, endpoint: &Endpoint) -> Result<(), KernelError> {
    if endpoint.bandwidth.ingress.is_none() && endpoint.bandwidth.egress.is_none() {
        return Ok(());
    }
    let host = super::bridge::index_of(rtnl, &endpoint.host_link)?;
    if let Some(rate) = endpoint.bandwidth.ingress {
        rtnl.transact(vec![qdisc::bucket(host, in_bytes(rate))])?;
    }
    let Some((rate, name)) = endpoint.bandwidth.egress.zip(device(endpoint)) else { return Ok(()) };
    if rtnl.link(&*name)?.is_none() {
        rtnl.transact(vec![qdisc::intermediate(&name, GROUP), link::no_link_local(&*name)])
            .map_err(unsupported)?;
    }
    let through = super::bridge::index_of(rtnl, &name)?;
    rtnl.transact(vec![
        qdisc::bucket(through, in_bytes(rate)),
        link::up(through),
        qdisc::no_ingress(host).forgiving(&[libc::ENOENT, libc::EINVAL]),
        qdisc::ingress(host),
        qdisc::redirect(host, through),
    ])
}

fn in_bytes(rate: Rate) -> Bucket {
    let burst = u32::try_from(rate.burst / 8).unwrap_or(u32::MAX);
    Bucket { rate: (rate.rate / 8).max(1), burst }
}

fn unsupported(error: KernelError) -> KernelError {
    if error.errno() != Some(libc::EOPNOTSUPP) {
        return error;
    }
    error.with_note(Some("this kernel has no devices of the kind ifb; leave the egress rate out".into()))
}
