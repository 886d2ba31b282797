//! Servers that refuse without saying so each time, and more questions than a server can take at once.

use super::*;

/// What a server is given before it has answered anything.
const FIRST_WINDOW: usize = 96;

#[test]
fn silence_of_a_server_that_has_refused_is_a_refusal() {
    let mut bench = Bench::new(2);
    bench.ask(1);
    for sent in 0..2 {
        let ticket = bench.wire.sent[sent].1;
        bench.forwards.refused(ticket, bench.now, &mut bench.wire);
    }
    assert_eq!(bench.answered(), [(1, 2)], "all have refused");

    bench.ask(2);
    assert_eq!(
        bench.servers_asked()[2..],
        [server(1), server(2)],
        "they may be back, and none is waited for"
    );
    bench.wait(100 * MS);
    assert_eq!(bench.answered(), [(2, 2)]);

    assert!(bench.reply(2, &message(0, 0)), "one is back");
    bench.ask(3);
    bench.wait(140 * MS);
    assert_eq!((bench.answered(), bench.servers_asked().len()), (vec![], 5), "and is waited for again");
    assert!(bench.reply(4, &message(0, 0)));
    assert_eq!(bench.answered(), [(3, 0)]);
    bench.wait(2 * DEADLINE);
    assert_eq!((bench.forwards.len(), bench.forwards.next_timer()), (0, None));
}

#[test]
fn a_refusal_is_forgotten_after_a_while() {
    let mut bench = Bench::new(1);
    bench.ask(1);
    let ticket = bench.wire.sent[0].1;
    bench.forwards.refused(ticket, bench.now, &mut bench.wire);
    assert_eq!(bench.answered(), [(1, 2)]);
    bench.wait(Duration::from_secs(11));
    bench.ask(2);
    bench.wait(DEADLINE - MS);
    assert_eq!(bench.answered(), []);
    bench.wait(2 * MS);
    assert_eq!(bench.answered(), [(2, 2)]);
}

/// Ten thousand questions at once, and `room` of them answered each millisecond by the server that lives.
fn crowd(bench: &mut Bench, living: SocketAddr, room: usize) -> Vec<(u32, u16)> {
    (0..10_000).for_each(|client| bench.ask_by(client, false, &client.to_be_bytes()));
    let (mut answered, mut next) = (bench.answered(), 0);
    for _ in 0..1000 {
        let until = bench.wire.sent.len();
        let fresh: Vec<usize> =
            (next..until).filter(|&sent| bench.wire.sent[sent].0 == living).take(room).collect();
        next = fresh.last().map_or(until, |last| last + 1);
        for sent in fresh {
            bench.reply(sent, &message(0, 0));
        }
        bench.wait(MS);
        answered.extend(bench.answered());
    }
    answered
}

#[test]
fn ten_thousand_questions_at_once_are_not_thrown_at_a_server() {
    let mut bench = Bench::new(1);
    (0..10_000).for_each(|client| bench.ask_by(client, false, &client.to_be_bytes()));
    assert_eq!(bench.servers_asked().len(), FIRST_WINDOW, "a receive buffer holds that many");
    let mut bench = Bench::new(1);
    let answered = crowd(&mut bench, server(1), 40);
    assert_eq!(answered.len(), 10_000);
    assert!(answered.iter().all(|(_, code)| *code == 0));
    assert_eq!(bench.wire.sent.len(), 10_000, "none is asked twice");
}

#[test]
fn a_crowd_does_not_wait_for_a_dead_server() {
    let mut bench = Bench::new(2);
    let answered = crowd(&mut bench, server(2), 40);
    assert_eq!(answered.len(), 10_000);
    assert!(answered.iter().all(|(_, code)| *code == 0));
    let asked = bench.servers_asked();
    let dead = asked.iter().filter(|asked| **asked == server(1)).count();
    assert!(dead <= 2 * FIRST_WINDOW, "{dead} went to the dead server");
    bench.wait(2 * DEADLINE);
    assert_eq!((bench.forwards.len(), bench.forwards.next_timer()), (0, None));
}

#[test]
fn a_crowd_before_silence_ends_in_time() {
    let mut bench = Bench::new(2);
    (0..10_000).for_each(|client| bench.ask_by(client, false, &client.to_be_bytes()));
    bench.wait(DEADLINE);
    let answered = bench.answered();
    assert_eq!(answered.len(), 10_000);
    assert!(answered.iter().all(|(_, code)| *code == Rcode::ServFail.bits()));
    assert_eq!((bench.forwards.len(), bench.forwards.next_timer()), (0, None));
}
