//! Health checks over real sockets: who is asked, what an answer is worth, and what clients notice of a verdict.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Bed, PATIENCE, Server, backend, connect, eventually, refusing};
use netd_proxy::table::{BackendState, Check, Place, Probe};
use netd_proxy::{Failure, Health, Unwell};

fn check(probe: Probe) -> Check {
    let interval = Duration::from_millis(20);
    Check { probe, interval, timeout: Duration::from_millis(500), rise: 2, fall: 2 }
}

fn http(path: &str) -> Probe {
    Probe::Http { port: None, path: path.into() }
}

/// A bed whose backends are not known to be well, and what is found of them.
fn checked(backends: &[SocketAddr], check: Check) -> (Bed, Receiver<Health>) {
    let mut bed = Bed::new(&[]);
    let (tell, told) = mpsc::channel();
    bed.proxy.on_health(move |health| tell.send(health.clone()).unwrap());
    bed.service.health = Some(check);
    bed.service.backends = backends.iter().map(|address| backend(*address)).collect();
    bed.service.backends.iter_mut().for_each(|backend| backend.state = BackendState::Starting);
    bed.put_service();
    (bed, told)
}

fn next(told: &Receiver<Health>) -> (String, bool) {
    let (backend, verdict) = verdict(told);
    (backend, verdict.is_ok())
}

fn verdict(told: &Receiver<Health>) -> (String, Result<(), Unwell>) {
    let Health { service, backend, verdict } = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(&*service, "s");
    (backend.to_string(), verdict)
}

fn is_served(address: SocketAddr) -> bool {
    connect(address).read(&mut [0]).is_ok()
}

/// An HTTP server whose answer is what `say` holds, and how often it was asked.
fn web(say: &Arc<Mutex<&'static str>>) -> (Server, Arc<AtomicUsize>) {
    let (say, asked) = (Arc::clone(say), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let server = Server::new(move |mut stream| {
        let mut question = Vec::new();
        let mut piece = [0; 512];
        while !question.ends_with(b"\r\n\r\n") {
            let filled = stream.read(&mut piece)?;
            if filled == 0 {
                // No health check: a client that wants to know whether anybody is there.
                return stream.write_all(b"x");
            }
            question.extend_from_slice(&piece[..filled]);
        }
        let question = String::from_utf8(question).unwrap();
        assert!(question.starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"), "{question}");
        count.fetch_add(1, Ordering::SeqCst);
        let said = *say.lock().unwrap();
        stream.write_all(said.as_bytes())
    });
    (server, asked)
}

#[test]
fn a_backend_serves_once_it_is_found_well_and_no_more_when_it_is_not() {
    let say = Arc::new(Mutex::new("HTTP/1.1 503 Not Yet\r\n\r\n"));
    let (server, _) = web(&say);
    let (mut bed, told) = checked(&[server.address], check(http("/healthz")));
    let address = bed.listen();
    let name = server.address.to_string();
    assert_eq!(next(&told), (name.clone(), false));
    assert!(connect(address).read(&mut [0]).is_err());
    for (answer, well) in [
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 500 Broken\r\n\r\n", false),
        ("HTTP/1.0 302 Found\r\n\r\n", true),
        ("220 this is no HTTP\r\n", false),
        ("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204\r\n", true),
        ("", false),
    ] {
        *say.lock().unwrap() = answer;
        assert_eq!(next(&told), (name.clone(), well), "{answer}");
        let mut client = connect(address);
        // Fails when it is reset already.
        let _ = client.shutdown(std::net::Shutdown::Write);
        assert_eq!(client.read(&mut [0]).is_ok(), well, "{answer}");
    }
    let stats = bed.proxy.stats().services.remove(0).backends.remove(0);
    assert_eq!((stats.state, stats.well), (BackendState::Failing, Some(false)));
}

#[test]
fn it_is_told_what_was_wrong() {
    let odd = Server::named("no HTTP at all\r\n\r\n");
    let sad = Server::named("HTTP/1.1 503 Service Unavailable\r\n\r\n");
    let quiet = Server::new(|mut stream| stream.read(&mut [0; 512]).map(|_| std::thread::park()));
    let nobody = refusing();
    let quick = Check { timeout: Duration::from_millis(60), ..check(http("/")) };
    let all = [odd.address, sad.address, quiet.address, nobody];
    let (_bed, told) = checked(&all, quick);
    let found: std::collections::HashMap<_, _> = all.iter().map(|_| verdict(&told)).collect();
    let why = [Unwell::Garbled, Unwell::Status(503), Unwell::Late, Unwell::Refused];
    for (address, why) in all.iter().zip(why) {
        assert_eq!(found[&address.to_string()], Err(why), "{why}");
    }
}

#[test]
fn a_server_that_never_ends_its_answer_is_unwell() {
    let drip = Server::new(|mut stream| {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n")?;
        loop {
            stream.write_all(&[b'x'; 4096])?;
        }
    });
    let silent = Server::new(|mut stream| stream.read(&mut [0; 512]).map(|_| std::thread::park()));
    let quick = Check { timeout: Duration::from_millis(60), ..check(http("/")) };
    let (_bed, told) = checked(&[drip.address, silent.address], quick);
    let mut found = [next(&told), next(&told)];
    found.sort();
    let mut expected = [(drip.address.to_string(), false), (silent.address.to_string(), false)];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_port_that_accepts_is_well_in_whichever_family() {
    let well = Server::named("x");
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V6(listening) = six.local_addr().unwrap() else { unreachable!("it was bound to IPv6") };
    let (mut bed, told) = checked(&[well.address, refusing()], check(Probe::Tcp { port: None }));
    let found: Vec<_> = [next(&told), next(&told)].into();
    assert!(found.contains(&(well.address.to_string(), true)), "{found:?}");
    bed.service.backends[1].v6 = Some(listening);
    bed.put_service();
    assert_eq!(next(&told), (bed.service.backends[1].id.to_string(), true), "by its other address");
    // Another port is asked than the one that serves.
    bed.service.health = Some(check(Probe::Tcp { port: Some(refusing().port()) }));
    bed.put_service();
    let mut found = [next(&told).1, next(&told).1];
    found.sort_unstable();
    assert_eq!(found, [false, false]);
    let address = bed.listen();
    assert!(connect(address).read(&mut [0]).is_err());
    assert_eq!(bed.settle().failed(Failure::NoBackend), 1);
}

#[test]
fn a_verdict_outlives_tables_that_come_again_and_is_told_to_who_comes_later() {
    let server = Server::named("x");
    let (mut bed, told) = checked(&[server.address], check(Probe::Tcp { port: None }));
    let address = bed.listen();
    let name = server.address.to_string();
    assert_eq!(next(&told), (name.clone(), true));
    assert!(is_served(address));
    // A new control plane has not heard yet: its table says that nothing is known.
    bed.put_service();
    assert!(is_served(address));
    let (tell, later) = mpsc::channel();
    bed.proxy.on_health(move |health| tell.send(health.clone()).unwrap());
    assert_eq!(
        later.try_recv().unwrap(),
        Health { service: "s".into(), backend: (*name).into(), verdict: Ok(()) }
    );
    // Without a check it is what the table says.
    bed.service.health = None;
    bed.put_service();
    assert!(connect(address).read(&mut [0]).is_err());
    assert_eq!(bed.proxy.stats().services[0].backends[0].well, None);
}

#[test]
fn what_the_table_says_counts_until_something_is_found() {
    let server = Server::named("x");
    let patient = Check { interval: PATIENCE, ..check(Probe::Tcp { port: None }) };
    let (mut bed, _told) = checked(&[server.address], patient);
    let address = bed.listen();
    assert!(connect(address).read(&mut [0]).is_err(), "one good answer is not enough");
    bed.service.backends[0].state = BackendState::Ready;
    bed.put_service();
    assert!(is_served(address), "found well before this process began");
}

#[test]
fn backends_of_other_nodes_are_not_asked() {
    let asked = Arc::new(AtomicBool::new(false));
    let ask = Arc::clone(&asked);
    let other = Server::new(move |_| {
        ask.store(true, Ordering::SeqCst);
        Ok(())
    });
    let own = Server::named("x");
    let (mut bed, told) = checked(&[own.address], check(Probe::Tcp { port: None }));
    let mesh = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let remote = netd_proxy::table::Backend { place: Place::Node { mesh }, ..backend(other.address) };
    bed.service.backends.push(remote);
    bed.put_service();
    assert_eq!(next(&told), (own.address.to_string(), true));
    let before = own.accepted();
    eventually("the own one has been asked some more", || (own.accepted() > before + 5).then_some(()));
    assert!(!asked.load(Ordering::SeqCst));
}

#[test]
fn a_check_ends_with_its_service() {
    let server = Server::named("x");
    let (bed, told) = checked(&[server.address], check(Probe::Tcp { port: None }));
    next(&told);
    let service = "s".into();
    bed.proxy.apply(vec![netd_proxy::table::Change::DropService { service }], Vec::new()).unwrap();
    // A question may be under way; with the next of a backend that comes, all orders have been followed.
    let mut other = bed.service.clone();
    let second = Server::named("y");
    other.id = "t".into();
    other.backends = vec![backend(second.address)];
    bed.proxy.apply(vec![netd_proxy::table::Change::PutService(other)], Vec::new()).unwrap();
    eventually("the second is asked", || (second.accepted() >= 2).then_some(()));
    let asked = server.accepted();
    eventually("the second is asked some more", || (second.accepted() >= 10).then_some(()));
    assert_eq!(server.accepted(), asked);
}

#[test]
fn more_backends_than_are_asked_at_once_are_all_found() {
    let server = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || server.incoming().for_each(drop));
    let addresses: Vec<SocketAddr> =
        (0..600u16).map(|n| (Ipv4Addr::new(127, 1, (n >> 8) as u8, (n & 255) as u8), port).into()).collect();
    let slow = Check { interval: Duration::from_millis(200), ..check(Probe::Tcp { port: None }) };
    let (_bed, told) = checked(&addresses, slow);
    let mut found: Vec<String> = addresses.iter().map(|_| next(&told).0).collect();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 600);
    drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
}
