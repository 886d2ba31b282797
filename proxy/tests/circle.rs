//! Services that lead to services: to another they may, and one that leads back to itself costs next to nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{ErrorKind, Read as _};

use common::{Bed, Server, backend, connect, eventually, read_all};
use netd_proxy::Failure;
use netd_proxy::table::{Backend, Place};

fn outside(address: std::net::SocketAddr) -> Backend {
    Backend { place: Place::Elsewhere, ..backend(address) }
}

#[test]
fn a_service_that_is_its_own_backend_fails_its_clients_and_takes_nothing_from_others() {
    let server = Server::named("there");
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    assert_eq!(read_all(&mut connect(address)), b"there");
    bed.service.backends = vec![outside(address)];
    bed.put_service();
    for _ in 0..20 {
        let mut client = connect(address);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let counts = bed.settle();
    assert!(counts.failed(Failure::Loop) >= 20, "{counts:?}");
    assert!(counts.accepted < 2000, "a few for each, and not all that there can be: {counts:?}");
    // It is mended by a table that leads on.
    bed.service.backends = vec![outside(server.address)];
    bed.put_service();
    eventually("it serves", || (read_all(&mut connect(address)) == b"there").then_some(()));
}
