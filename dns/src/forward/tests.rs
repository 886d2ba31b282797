mod crowd;

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::parse::{HEADER, flag};
use crate::target::Place;

/// `www.example. A IN`.
const QUESTION: &[u8] = b"\x03www\x07example\x00\x00\x01\x00\x01";

const MS: Duration = Duration::from_millis(1);

/// Remembers what was sent; a slot is its place in the list.
#[derive(Default)]
struct Wire {
    sent: Vec<(SocketAddr, Ticket, Option<bool>)>,
    streams: Vec<(SocketAddr, Ticket)>,
    forgotten: Vec<usize>,
    unreachable: Vec<SocketAddr>,
}

impl Transport for Wire {
    type Slot = usize;

    fn send(
        &mut self,
        upstream: &Rc<Upstream>,
        ticket: Ticket,
        outline: Outline<'_>,
    ) -> Result<usize, Unsendable> {
        if self.unreachable.contains(&upstream.address) {
            return Err(Unsendable);
        }
        self.sent.push((upstream.address, ticket, outline.edns));
        Ok(self.sent.len() - 1)
    }

    fn send_stream(
        &mut self,
        upstream: &Rc<Upstream>,
        ticket: Ticket,
        _: Outline<'_>,
    ) -> Result<(), Unsendable> {
        self.streams.push((upstream.address, ticket));
        Ok(())
    }

    fn forget(&mut self, slot: usize) {
        self.forgotten.push(slot);
    }
}

struct Bench {
    forwards: Forwards<u32, usize>,
    wire: Wire,
    target: Rc<Target>,
    now: Instant,
}

fn server(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 53).into()
}

fn message(code: u16, more: u16) -> Vec<u8> {
    let mut message = vec![0; HEADER];
    let flags = flag::RESPONSE | flag::RECURSION_DESIRED | code | more;
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[5] = 1;
    message.extend_from_slice(QUESTION);
    message
}

impl Bench {
    fn new(servers: u8) -> Self {
        let servers: Vec<SocketAddr> = (1..=servers).map(server).collect();
        let target = Target::new(1, Place::Host, &servers, None, |_| Arc::default());
        let target = Rc::new(target);
        Self { forwards: Forwards::default(), wire: Wire::default(), target, now: Instant::now() }
    }

    fn ask(&mut self, client: u32) {
        self.ask_by(client, false, b"key");
    }

    fn ask_by(&mut self, client: u32, by_stream: bool, key: &[u8]) {
        let asked = Asked::new(&Heading { id: 1, flags: 0, question: QUESTION, edns: None }, (&[], 0));
        let outline = Outline {
            question: QUESTION,
            recursion_desired: true,
            checking_disabled: false,
            edns: Some(false),
        };
        let order = Order { key, target: &self.target, view: 0, outline };
        let waiter = Waiter { client, asked, by_stream, since: self.now };
        self.forwards.ask(&order, waiter, self.now, &mut self.wire);
    }

    /// A reply to what was sent as number `sent`.
    fn reply(&mut self, sent: usize, message: &[u8]) -> bool {
        let ticket = self.wire.sent[sent].1;
        self.forwards.replied(ticket, message, self.now, &mut self.wire)
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.forwards.next_timer().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.forwards.expire(self.now, &mut self.wire);
        }
        self.now = until;
    }

    fn servers_asked(&self) -> Vec<SocketAddr> {
        self.wire.sent.iter().map(|(server, _, _)| *server).collect()
    }

    /// Clients that have been answered, with the code they got; SERVFAIL where nobody had an answer.
    fn answered(&mut self) -> Vec<(u32, u16)> {
        let code = |reply: &Option<Rc<UpstreamReply>>| {
            reply.as_ref().map_or(Rcode::ServFail.bits(), |reply| reply.rcode())
        };
        let finished = self.forwards.finished();
        finished.iter().flat_map(|f| f.waiters.iter().map(|w| (w.client, code(&f.reply)))).collect()
    }
}

#[test]
fn equal_questions_are_asked_once() {
    let mut bench = Bench::new(2);
    (0..5).for_each(|client| bench.ask(client));
    assert_eq!(bench.servers_asked(), [server(1)]);
    assert!(bench.reply(0, &message(0, 0)));
    assert_eq!(bench.answered(), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    assert_eq!(bench.forwards.len(), 0, "nothing is left behind");
    bench.ask(9);
    assert_eq!(bench.servers_asked().len(), 2, "a later question is a new one");
}

#[test]
fn a_server_that_fails_is_followed_by_the_next_at_once() {
    for code in [Rcode::ServFail, Rcode::Refused] {
        let mut bench = Bench::new(2);
        bench.ask(1);
        bench.reply(0, &message(code.bits(), 0));
        assert_eq!(bench.servers_asked(), [server(1), server(2)]);
        bench.reply(1, &message(Rcode::NxDomain.bits(), 0));
        assert_eq!(bench.answered(), [(1, 3)]);
        assert_eq!(bench.wire.sent.len(), 2);
    }
}

#[test]
fn when_all_fail_the_client_is_told_at_once() {
    let mut bench = Bench::new(3);
    bench.ask(1);
    assert!((0..3).all(|sent| bench.reply(sent, &message(2, 0))));
    assert_eq!(bench.answered(), [(1, 2)]);
    assert_eq!(bench.wire.sent.len(), 3);
}

#[test]
fn servers_that_cannot_be_reached_cost_no_time() {
    let mut bench = Bench::new(3);
    bench.wire.unreachable = vec![server(1), server(2)];
    bench.ask(1);
    assert_eq!(bench.servers_asked(), [server(3)]);
    let ticket = bench.wire.sent[0].1;
    bench.forwards.refused(ticket, bench.now, &mut bench.wire);
    assert_eq!(bench.answered(), [(1, 2)]);
    bench.wire.unreachable.push(server(3));
    bench.ask(2);
    assert_eq!(bench.answered(), [(2, 2)]);
}

#[test]
fn a_late_server_is_hedged_and_its_answer_still_counts() {
    let mut bench = Bench::new(2);
    bench.ask(1);
    bench.wait(140 * MS);
    assert_eq!(bench.servers_asked(), [server(1)]);
    bench.wait(100 * MS);
    assert_eq!(bench.servers_asked(), [server(1), server(2)]);
    bench.reply(0, &message(0, 0));
    assert_eq!(bench.answered(), [(1, 0)]);
    // The other reply only tells that its server lives.
    assert!(bench.reply(1, &message(0, 0)));
    assert_eq!((bench.answered(), bench.forwards.len()), (vec![], 0));
}

#[test]
fn a_dead_server_is_learned_and_later_probed_without_cost() {
    let mut bench = Bench::new(2);
    for client in 0..3 {
        bench.ask_by(client, false, &client.to_be_bytes());
    }
    bench.wait(400 * MS);
    assert!((3..6).all(|sent| bench.reply(sent, &message(0, 0))));
    assert_eq!(bench.answered().len(), 3);
    bench.ask_by(9, false, b"next");
    assert_eq!(bench.servers_asked().last(), Some(&server(2)), "the dead one is asked last now");
    bench.reply(bench.wire.sent.len() - 1, &message(0, 0));

    bench.wait(1500 * MS);
    let before = bench.wire.sent.len();
    bench.ask_by(10, false, b"later");
    assert_eq!(bench.servers_asked()[before..], [server(2), server(1)], "a copy probes the dead one");
    bench.reply(before + 1, &message(0, 0));
    let before = bench.wire.sent.len();
    bench.ask_by(11, false, b"healed");
    assert_eq!(bench.servers_asked()[before..], [server(1)]);
}

#[test]
fn silence_everywhere_ends_at_the_deadline_and_is_bounded() {
    for servers in 1..=6 {
        let mut bench = Bench::new(servers);
        bench.ask(1);
        bench.wait(DEADLINE - MS);
        assert_eq!(bench.answered(), []);
        bench.wait(2 * MS);
        assert_eq!(bench.answered(), [(1, 2)]);
        assert!(bench.wire.sent.len() <= 8, "{}", bench.wire.sent.len());
        assert!(bench.wire.sent.len() >= 4, "a lost datagram is not the end");
        assert_eq!(bench.wire.forgotten.len(), bench.wire.sent.len(), "no slot leaks");
        assert_eq!((bench.forwards.len(), bench.forwards.next_timer()), (0, None));
    }
}

#[test]
fn a_lost_datagram_is_sent_again_before_a_silent_server_is_asked() {
    let mut bench = Bench::new(2);
    bench.target.servers[0].health.borrow_mut().refused(bench.now);
    bench.ask(1);
    bench.wait(Duration::from_secs(3));
    assert_eq!(bench.servers_asked()[..3], [server(2), server(2), server(1)]);
}

#[test]
fn a_server_that_does_not_know_edns_is_asked_without() {
    let mut bench = Bench::new(1);
    bench.ask(1);
    assert_eq!(bench.wire.sent[0].2, Some(false));
    bench.reply(0, &message(Rcode::FormErr.bits(), 0));
    assert_eq!((bench.wire.sent.len(), bench.wire.sent[1].2), (2, None));
    bench.reply(1, &message(0, 0));
    assert_eq!(bench.answered(), [(1, 0)]);
    bench.ask(2);
    assert_eq!(bench.wire.sent[2].2, None, "it is remembered");
    bench.reply(2, &message(0, 0));
    bench.wait(Duration::from_secs(600));
    bench.ask(3);
    assert_eq!(bench.wire.sent[3].2, Some(false), "but not for ever");
}

#[test]
fn a_second_try_goes_without_edns() {
    let mut bench = Bench::new(1);
    bench.ask(1);
    bench.wait(Duration::from_secs(1));
    let edns: Vec<_> = bench.wire.sent.iter().map(|sent| sent.2).collect();
    assert_eq!(edns[..2], [Some(false), None]);
}

#[test]
fn forgeries_change_nothing() {
    let mut bench = Bench::new(1);
    bench.ask(1);
    let mut other = message(0, 0);
    other[HEADER + 1] = b'x';
    assert!(!bench.reply(0, &other));
    assert!(!bench.reply(0, b"short"));
    assert_eq!(bench.answered(), []);
    assert!(bench.reply(0, &message(0, 0)));
    assert_eq!(bench.answered(), [(1, 0)]);
}

#[test]
fn a_truncated_reply_serves_datagrams_and_sends_streams_to_tcp() {
    let mut bench = Bench::new(1);
    bench.ask_by(1, false, b"key");
    bench.ask_by(2, true, b"key");
    bench.reply(0, &message(0, flag::TRUNCATED));
    assert_eq!(bench.answered(), [(1, 0)]);
    let (address, ticket) = bench.wire.streams[0];
    assert_eq!(address, server(1));
    bench.forwards.stream_replied(ticket, Some(&message(0, 0)), bench.now, &mut bench.wire);
    assert_eq!(bench.answered(), [(2, 0)]);

    bench.ask_by(3, false, b"key");
    bench.reply(1, &message(0, flag::TRUNCATED));
    assert_eq!((bench.answered(), bench.wire.streams.len()), (vec![(3, 0)], 1), "nobody needs TCP");

    bench.ask_by(4, true, b"key");
    bench.reply(2, &message(0, flag::TRUNCATED));
    let ticket = bench.wire.streams[1].1;
    bench.forwards.stream_replied(ticket, None, bench.now, &mut bench.wire);
    assert_eq!(bench.answered(), [(4, 2)]);
}

#[derive(Clone, Debug)]
enum Event {
    Ask { by_stream: bool, key: u8 },
    Reply { sent: prop::sample::Index, code: u16, truncated: bool },
    Refuse(prop::sample::Index),
    Stream { at: prop::sample::Index, good: bool },
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (any::<bool>(), 0_u8..4).prop_map(|(by_stream, key)| Event::Ask { by_stream, key }),
        (index(), 0_u16..6, any::<bool>()).prop_map(|(sent, code, truncated)| Event::Reply {
            sent,
            code,
            truncated
        }),
        index().prop_map(Event::Refuse),
        (index(), any::<bool>()).prop_map(|(at, good)| Event::Stream { at, good }),
        (0_u64..1000).prop_map(Event::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_every_client_is_answered_once(
        servers in 1_u8..5,
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let mut bench = Bench::new(servers);
        let mut asked = 0;
        let mut answered = Vec::new();
        for event in events {
            match event {
                Event::Ask { by_stream, key } => {
                    bench.ask_by(asked, by_stream, &[key]);
                    asked += 1;
                }
                Event::Reply { sent, code, truncated } if !bench.wire.sent.is_empty() => {
                    let sent = sent.index(bench.wire.sent.len());
                    bench.reply(sent, &message(code, if truncated { flag::TRUNCATED } else { 0 }));
                }
                Event::Refuse(sent) if !bench.wire.sent.is_empty() => {
                    let ticket = bench.wire.sent[sent.index(bench.wire.sent.len())].1;
                    bench.forwards.refused(ticket, bench.now, &mut bench.wire);
                }
                Event::Stream { at, good } if !bench.wire.streams.is_empty() => {
                    let ticket = bench.wire.streams[at.index(bench.wire.streams.len())].1;
                    let reply = message(0, 0);
                    let reply = good.then_some(&reply[..]);
                    bench.forwards.stream_replied(ticket, reply, bench.now, &mut bench.wire);
                }
                Event::Wait(millis) => bench.wait(Duration::from_millis(millis)),
                _ => {}
            }
            answered.extend(bench.answered().into_iter().map(|(client, _)| client));
        }
        bench.wait(2 * DEADLINE);
        answered.extend(bench.answered().into_iter().map(|(client, _)| client));
        answered.sort_unstable();
        prop_assert_eq!(answered, (0..asked).collect::<Vec<_>>());
        prop_assert_eq!((bench.forwards.len(), bench.forwards.next_timer()), (0, None));
    }
}
