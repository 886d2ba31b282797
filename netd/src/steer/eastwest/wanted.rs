//! Which connections go straight to a backend, and in which shares: what the relay would do, where that can be done without
//! it. All others are the relay's. Pure.

use std::net::IpAddr;

use netd_proxy::table::{
    Backend as Proxied, BackendState, Listener, Place, Policy, Protocol, Service as Balanced,
};
use netd_sys::bpf::Transport;
use netd_sys::bpf::eastwest::{Backend, Vip};

use super::content::Wanted;
use crate::model::{Answer, EastWest, Network, Service};

/// Seats that the weights of one service are shared out to.
const SHARES: u64 = 256;

/// Whether the listener is one of the service's own addresses, and not a port of the node.
pub(super) fn vip(listener: &Listener, service: &Service) -> Option<Vip> {
    let Answer::Vip { v4, v6 } = service.answer else { return None };
    let address = listener.address.ip();
    let is_its_own = match address {
        IpAddr::V4(address) => v4 == Some(address),
        IpAddr::V6(address) => v6 == Some(address),
    };
    let transport = match listener.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    is_its_own.then_some(Vip { transport, address, port: listener.address.port() })
}

/// None: nothing of it goes straight.
pub(super) fn wanted(
    listener: &Listener,
    balanced: &Balanced,
    service: &Service,
    (network, number): (&Network, u32),
) -> Option<Wanted> {
    let is_sharing = matches!(balanced.policy, Policy::RoundRobin | Policy::Weighted);
    let is_plain = listener.proxy_protocol.is_none() && is_sharing;
    // Sandboxes that may not talk to each other may talk to a service: that is the relay's doing.
    if service.east_west != EastWest::Connect || !is_plain || !network.options.icc {
        return None;
    }
    let ready: Vec<&Proxied> =
        balanced.backends.iter().filter(|backend| backend.state == BackendState::Ready).collect();
    // Who is not on the network may be reached by the node alone, and should have its share all the same.
    if ready.iter().any(|backend| backend.place == Place::Elsewhere) {
        return None;
    }
    let is_here = |backend: &&&Proxied| backend.place == Place::Here;
    let only_here = balanced.prefer_local && ready.iter().any(|backend| is_here(&backend));
    let at = |backend: &Proxied| {
        let is_v4 = listener.address.is_ipv4();
        let (v4, v6) = (backend.v4.map(Into::into), backend.v6.map(Into::into));
        let address: std::net::SocketAddr = if is_v4 { v4 } else { v6 }?;
        let port = match (listener.target_port, listener.address.port()) {
            (Some(target), _) => target,
            (None, 0) => 0,
            (None, _) => address.port(),
        };
        Some((Backend { address: address.ip(), port }, backend.weight))
    };
    let chosen = ready.iter().filter(|backend| !only_here || is_here(backend));
    let backends: Vec<(Backend, u16)> = chosen.filter_map(|backend| at(backend)).collect();
    let seats = if balanced.policy == Policy::Weighted {
        shares(&backends)
    } else {
        backends.into_iter().map(|(backend, _)| backend).collect()
    };
    Some(Wanted { network: number, affinity: balanced.affinity, seats })
}

/// Each backend as often as its weight says: exactly where that takes few seats, else as nearly as [`SHARES`] allow.
fn shares(backends: &[(Backend, u16)]) -> Vec<Backend> {
    let weights = || backends.iter().map(|(_, weight)| u64::from(*weight).max(1));
    let unit = weights().fold(0, common_divisor).max(1);
    let sum: u64 = weights().sum();
    let share = |weight: u64| match sum / unit <= SHARES {
        true => weight / unit,
        false => ((weight * SHARES + sum / 2) / sum).max(1),
    };
    let seats = backends.iter().zip(weights());
    seats.flat_map(|((backend, _), weight)| std::iter::repeat_n(*backend, share(weight) as usize)).collect()
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn backend(n: usize) -> Backend {
        Backend { address: Ipv4Addr::new(10, 0, 0, n as u8).into(), port: 0 }
    }

    proptest! {
        #[test]
        fn everybody_has_a_seat_and_about_his_share(weights in proptest::collection::vec(1_u16.., 1..40)) {
            let backends: Vec<_> = weights.iter().enumerate().map(|(n, weight)| (backend(n), *weight)).collect();
            let seats = shares(&backends);
            prop_assert!(seats.len() <= SHARES as usize + backends.len());
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (at, weight) in backends {
                let share = seats.iter().filter(|seat| **seat == at).count() as f64 / seats.len() as f64;
                let due = f64::from(weight) / sum;
                prop_assert!(share > 0.0 && (share - due).abs() < 0.5 / 100.0 + due * 0.16, "{share} for {due}");
            }
        }
    }

    #[test]
    fn small_weights_are_met_exactly() {
        let seats = shares(&[(backend(1), 30), (backend(2), 10)]);
        assert_eq!(seats, [backend(1), backend(1), backend(1), backend(2)]);
    }
}
