//! What a change of the backends keeps, and where a client is led.

use std::net::Ipv6Addr;

use super::*;
use crate::table::{Place, Policy};

fn backend(id: &str, port: u16, state: BackendState) -> Backend {
    Backend {
        id: id.into(),
        v4: Some(format!("10.0.0.1:{port}").parse().unwrap()),
        v6: Some(format!("[fd00::1]:{port}").parse().unwrap()),
        weight: 1,
        state,
        place: Place::Here,
    }
}

fn service(backends: Vec<Backend>) -> Service {
    Service {
        id: "s".into(),
        label: "s".into(),
        policy: Policy::RoundRobin,
        backends,
        connect_timeout: Duration::from_secs(1),
        udp_idle: Duration::from_secs(1),
        ..Service::default()
    }
}

fn picked(handle: &ServiceHandle) -> Vec<String> {
    let pool = handle.pool();
    let client = "10.9.9.9:1".parse().unwrap();
    let mut ids: Vec<String> = (0..4)
        .filter_map(|_| handle.pick(&pool, client, &[], 0).map(|(_, backend)| backend.id.to_string()))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

#[test]
fn a_draining_backend_gets_nothing_new_but_is_kept() {
    let ready = vec![backend("a", 1, BackendState::Ready), backend("b", 2, BackendState::Ready)];
    let handle = ServiceHandle::new(&service(ready));
    assert_eq!(picked(&handle), ["a", "b"]);
    let pool = handle.pool();
    let (_, a) = handle.pick(&pool, "10.9.9.9:1".parse().unwrap(), &[1], 0).unwrap();
    let held = a.occupy();
    handle.replace(&service(vec![
        backend("b", 2, BackendState::Ready),
        backend("a", 1, BackendState::Draining),
    ]));
    assert_eq!(picked(&handle), ["b"]);
    assert!(handle.pool().keeps(&held.backend));
    handle.replace(&service(vec![backend("a", 7, BackendState::Ready)]));
    assert!(!handle.pool().keeps(&held.backend), "the same name at another address is another place");
    assert_eq!(handle.pool().ready[0].load().0, 1, "open connections stay counted");
    drop(held);
    assert_eq!(handle.pool().ready[0].load().0, 0);
    handle.empty();
    assert!(picked(&handle).is_empty());
}

#[test]
fn a_client_is_led_to_its_own_family_where_there_is_one() {
    let handle = ServiceHandle::new(&service(vec![
        backend("a", 1, BackendState::Ready),
        Backend { v6: None, ..backend("b", 2, BackendState::Ready) },
    ]));
    let pool = handle.pool();
    let six: IpAddr = Ipv6Addr::LOCALHOST.into();
    assert_eq!(pool.ready[0].address(six, None), "[fd00::1]:1".parse().ok());
    assert_eq!(pool.ready[1].address(six, Some(80)), "10.0.0.1:80".parse().ok());
}
