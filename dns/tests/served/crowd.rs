//! Upstream servers that are gone, and many clients who do not know.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use netd_dns::Kind;

use crate::lab::fake::{Fake, encode};
use crate::lab::{Lab, SOON, name, put};

/// Enough to overflow a receive buffer of the usual size many times.
const CROWD: u16 = 5_000;

#[test]
fn a_server_that_has_refused_is_not_waited_for() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let lab = Lab::forwarding(&[nobody]);
    assert_eq!(lab.dig("www.example A").status, "SERVFAIL");
    // Hosts send only a few refusals a second; from here on this one sends none.
    let _silence = UdpSocket::bind(nobody).expect("the port is still free");
    let began = Instant::now();
    assert_eq!(lab.dig("other.example A").status, "SERVFAIL");
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
}

fn question(number: u16) -> Vec<u8> {
    let mut query = Message::query();
    query.metadata.id = number;
    let name = format!("n{number}.example.").parse().expect("a name");
    query.add_query(Query::query(name, RecordType::A));
    encode(&query)
}

#[test]
fn a_crowd_is_answered_while_the_first_server_is_dead() {
    let (dead, good) = (Fake::silent(), Fake::steady([192, 0, 2, 2]));
    let lab = Lab::forwarding(&[dead.address, good.address]);
    lab.apply(vec![put("z", name("web", &["10.0.0.2"]))], vec![]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(lab.address).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let answered: Vec<AtomicBool> = (0..CROWD).map(|_| AtomicBool::new(false)).collect();
    let open = || (0..CROWD).filter(|number| !answered[usize::from(*number)].load(Ordering::Relaxed));
    let deadline = Instant::now() + SOON;
    // Where buffers are small the crowd itself loses questions, and asks again as clients do.
    while open().next().is_some() {
        assert!(Instant::now() < deadline, "{} are not answered", open().count());
        std::thread::scope(|scope| {
            scope.spawn(|| open().for_each(|number| drop(client.send(&question(number)))));
            let mut answer = [0; 512];
            while open().next().is_some()
                && let Ok(length) = client.recv(&mut answer)
            {
                let answer = Message::from_vec(&answer[..length]).unwrap();
                assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
                answered[usize::from(answer.metadata.id)].store(true, Ordering::Relaxed);
            }
        });
    }
    assert_eq!(lab.dig("web A").answers.len(), 1, "local names do not suffer");
    let stats = lab.server.stats();
    assert_eq!((stats.answers_of(Kind::ServFail), stats.overloaded), (0, 0));
    assert!(dead.asked().len() < 500, "{} questions went to the dead server", dead.asked().len());
}
