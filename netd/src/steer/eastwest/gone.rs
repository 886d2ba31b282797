//! Which connections have nobody at their other end any more: those that were led to a backend which the service has lost.
//! A program on a connected datagram socket would never hear of it. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use netd_proxy::table::{Backend as Proxied, BackendState, Place};
use netd_sys::bpf::Transport;
use netd_sys::bpf::eastwest::{Backend, Gone};

use crate::model::{Answer, Service};

/// What is to be ended between the one list of a service's backends and the next.
///
/// * Datagrams: of backends that are not in the list any more, or unwell while another is well. A flow loses nothing by
///   being led to another, which is what the relay does.
/// * Streams: of those that are not in the list any more. But a node of which nothing is heard may be cut off from the
///   store alone, and its connections be as good as ever; so not of those that were on a node that is not `is_live`.
///
/// What drains keeps what it has.
pub(super) fn gone(
    service: &Service,
    before: &[Proxied],
    after: &[Proxied],
    is_live: impl Fn(SocketAddr) -> bool,
) -> BTreeSet<Gone> {
    let vips = vips(service);
    let all: BTreeSet<IpAddr> = after.iter().flat_map(addresses).collect();
    let (was, is) = (answering(before), answering(after));
    let datagrams = was.difference(&is).map(|address| (Transport::Udp, *address));
    let can_tell = |backend: &&Proxied| match backend.place {
        Place::Here => true,
        Place::Node { mesh } => is_live(mesh),
        Place::Elsewhere => false,
    };
    let streams = before.iter().filter(can_tell).flat_map(addresses);
    let streams = streams.filter(|address| !all.contains(address)).map(|address| (Transport::Tcp, address));
    let at_vip = |(transport, backend): (Transport, IpAddr)| {
        let vip = *vips.iter().find(|vip| vip.is_ipv4() == backend.is_ipv4())?;
        Some(Gone { transport, vip, backend })
    };
    datagrams.chain(streams).filter_map(at_vip).collect()
}

/// Those that are unwell are asked while nobody is well.
fn answering(backends: &[Proxied]) -> BTreeSet<IpAddr> {
    let has_ready = backends.iter().any(|backend| backend.state == BackendState::Ready);
    let is_well = |backend: &&Proxied| !(has_ready && backend.state == BackendState::Failing);
    backends.iter().filter(is_well).flat_map(addresses).collect()
}

fn addresses(backend: &Proxied) -> impl Iterator<Item = IpAddr> + use<> {
    let v4 = backend.v4.map(|at| IpAddr::V4(*at.ip()));
    v4.into_iter().chain(backend.v6.map(|at| IpAddr::V6(*at.ip())))
}

pub(super) fn vips(service: &Service) -> Vec<IpAddr> {
    let Answer::Vip { v4, v6 } = service.answer else { return Vec::new() };
    v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)).collect()
}

/// As much as is known of one whose record is gone with an earlier control plane. Its node may have died in between.
pub(super) fn led_to(Backend { address, port }: Backend) -> Proxied {
    let (v4, v6) = match address {
        IpAddr::V4(v4) => (Some(SocketAddrV4::new(v4, port)), None),
        IpAddr::V6(v6) => (None, Some(SocketAddrV6::new(v6, port, 0, 0))),
    };
    let (state, place) = (BackendState::Ready, Place::Elsewhere);
    Proxied { id: address.to_string().into(), v4, v6, weight: 1, state, place }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::testing;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 250);

    fn backend(number: u8, state: BackendState, place: Place) -> Proxied {
        let address = Ipv4Addr::new(10, 0, 0, number).into();
        Proxied { state, place, ..led_to(Backend { address, port: 0 }) }
    }

    fn lost(before: &[Proxied], after: &[Proxied], live: bool) -> Vec<(Transport, u8)> {
        let service = Service {
            answer: Answer::Vip { v4: Some(VIP), v6: None },
            ..testing::service("s1", "n1", "10.0.0.250")
        };
        let gone = gone(&service, before, after, |_| live);
        let number = |gone: &Gone| match gone.backend {
            IpAddr::V4(address) => (gone.transport, address.octets()[3]),
            IpAddr::V6(_) => unreachable!("none has one"),
        };
        assert!(gone.iter().all(|gone| gone.vip == VIP));
        gone.iter().map(number).collect()
    }

    #[test]
    fn what_is_gone_is_ended_and_what_may_be_there_is_not() {
        use BackendState::{Draining, Failing, Ready};
        let far = Place::Node { mesh: (Ipv4Addr::LOCALHOST, 6383).into() };
        let (here, there) = (backend(2, Ready, Place::Here), backend(3, Ready, far));
        let both = [here.clone(), there.clone()];
        assert_eq!(lost(&both, &both, true), []);
        let without = [there];
        assert_eq!(lost(&both, &without, true), [(Transport::Tcp, 2), (Transport::Udp, 2)]);
        let without = [here.clone()];
        assert_eq!(lost(&both, &without, true), [(Transport::Tcp, 3), (Transport::Udp, 3)]);
        assert_eq!(lost(&both, &without, false), [(Transport::Udp, 3)], "its node may be alive");
        assert_eq!(lost(&both, &[], true).len(), 4, "also the last ones");

        let draining = [here.clone(), backend(3, Draining, far)];
        assert_eq!(lost(&both, &draining, true), []);
        assert_eq!(
            lost(&draining, std::slice::from_ref(&here), true),
            [(Transport::Tcp, 3), (Transport::Udp, 3)]
        );
        let unwell = [here, backend(3, Failing, far)];
        assert_eq!(lost(&both, &unwell, true), [(Transport::Udp, 3)], "the other is well");
        let all = [backend(2, Failing, Place::Here), backend(3, Failing, far)];
        assert_eq!(lost(&unwell, &all, true), [], "no place is better");
        assert_eq!(lost(&all, &unwell, true), [(Transport::Udp, 3)], "now there is one");
    }
}
