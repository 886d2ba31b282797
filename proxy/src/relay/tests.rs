//! One direction between two pairs of sockets with small buffers: whatever the sizes of writes and reads, the sink gets
//! what the source sent, in order, then the end; and a direction with nothing to do holds nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use proptest::prelude::*;

use super::*;

/// A connected pair: ours, and the far end.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    for stream in [&near, &far] {
        stream.set_nonblocking(true).unwrap();
        socket2::SockRef::from(stream).set_send_buffer_size(20_000).unwrap();
        socket2::SockRef::from(stream).set_recv_buffer_size(20_000).unwrap();
    }
    (near, far)
}

struct Bench {
    direction: Direction,
    source: Leg,
    sink: Leg,
    /// The far ends.
    writer: TcpStream,
    reader: TcpStream,
    scratch: Vec<u8>,
    pipes: PipePool,
}

impl Bench {
    fn new(splicing: bool) -> Self {
        let ((source, writer), (sink, reader)) = (pair(), pair());
        let direction =
            Direction { splicing, pace: if splicing { 1 << 20 } else { 0 }, ..Direction::default() };
        Self {
            direction,
            source: Leg::unknown(source),
            sink: Leg::unknown(sink),
            writer,
            reader,
            scratch: vec![0; 5000],
            pipes: PipePool::new(1 << 20),
        }
    }

    /// A turn after an event on every socket.
    fn pump(&mut self) -> Result<bool, Broken> {
        for leg in [&mut self.source, &mut self.sink] {
            (leg.readable, leg.writable, leg.read_to_the_end) = (true, true, true);
        }
        let mut tools = Tools { scratch: &mut self.scratch, pipes: &mut self.pipes };
        self.direction.pump(&mut self.source, &mut self.sink, &mut tools)
    }
}

fn wrote(result: io::Result<usize>) -> usize {
    match result {
        Ok(count) => count,
        Err(error) if would_block(&error) => 0,
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sizes_arrive_in_order(
        steps in prop::collection::vec((0usize..60_000, 0usize..60_000), 1..60),
        splicing: bool,
        seed: u8,
    ) {
        let mut bench = Bench::new(splicing);
        let (mut sent, mut received) = (Vec::<u8>::new(), Vec::<u8>::new());
        for (number, (write, read)) in steps.into_iter().enumerate() {
            let words: Vec<u8> = (0..write).map(|at| (at * 31 + number * 7) as u8 ^ seed).collect();
            sent.extend(&words[..wrote(bench.writer.write(&words))]);
            prop_assert!(bench.pump().is_ok());
            let mut room = vec![0; read];
            let count = wrote(bench.reader.read(&mut room));
            received.extend(&room[..count]);
        }
        bench.writer.shutdown(Shutdown::Write).unwrap();
        let mut room = [0; 50_000];
        let mut ended = false;
        while !ended {
            prop_assert!(bench.pump().is_ok());
            match bench.reader.read(&mut room) {
                Ok(0) => ended = true,
                result => received.extend(&room[..wrote(result)]),
            }
        }
        prop_assert!(received == sent);
        prop_assert_eq!(bench.direction.moved, sent.len() as u64);
        prop_assert!(bench.direction.is_finished());
        prop_assert!(bench.direction.pipe.is_none() && bench.direction.leftover.is_none());
    }
}

#[test]
fn bytes_of_our_own_go_first_and_are_not_counted() {
    let mut bench = Bench::new(false);
    bench.direction = Direction::beginning_with(Box::from(*b"header "));
    bench.writer.write_all(b"body").unwrap();
    bench.writer.shutdown(Shutdown::Write).unwrap();
    while !bench.direction.is_finished() {
        bench.pump().unwrap();
    }
    bench.reader.set_nonblocking(false).unwrap();
    let mut all = Vec::new();
    bench.reader.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"header body");
    assert_eq!(bench.direction.moved, 4);
}

#[test]
fn much_at_a_time_is_spliced_and_little_is_copied_again() {
    let mut direction = Direction::default();
    (0..40).for_each(|_| direction.pace(100));
    direction.moved = 1 << 20;
    direction.pace(100);
    assert!(!direction.splicing, "small steps stay copied however many there are");
    (0..4).for_each(|_| direction.pace(64 << 10));
    assert!(direction.splicing);
    (0..40).for_each(|_| direction.pace(100));
    assert!(!direction.splicing);
}

#[test]
fn a_source_that_is_reset_and_a_sink_that_is_reset_are_told_apart() {
    for (reset_source, expected) in [(true, Broken::Source), (false, Broken::Sink)] {
        let mut bench = Bench::new(false);
        let (reader, writer) = (bench.reader.try_clone().unwrap(), bench.writer.try_clone().unwrap());
        drop((
            std::mem::replace(&mut bench.reader, pair().1),
            std::mem::replace(&mut bench.writer, pair().1),
        ));
        if reset_source {
            netd_sys::socket::reset(writer);
            drop(reader);
        } else {
            (&writer).write_all(b"for nobody").unwrap();
            netd_sys::socket::reset(reader);
        }
        let broken = (0..1000).find_map(|_| bench.pump().err());
        assert_eq!(broken, Some(expected));
    }
}

#[test]
fn a_reset_behind_bytes_is_no_end() {
    let mut bench = Bench::new(false);
    bench.writer.write_all(b"last words").unwrap();
    netd_sys::socket::reset(std::mem::replace(&mut bench.writer, pair().1));
    // Whether the bytes still come is the kernel's choice.
    let broken = (0..1000).find_map(|_| bench.pump().err());
    assert_eq!(broken, Some(Broken::Source));
    assert!(!bench.direction.is_finished());
}
