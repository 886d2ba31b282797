//! What a client and a backend notice of the relay between them: nothing but the bytes, the ends and the resets.

mod common;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use common::{Bed, Noise, PATIENCE, Server, connect, eventually, read_all};
use netd_proxy::Failure;
use netd_sys::socket;

#[test]
fn bytes_go_both_ways_at_once_and_unchanged() {
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    let address = bed.listen();
    // Small ones, sizes around the scratch buffer, and enough to change to splicing and back.
    let sizes = [0, 1, 13, 4096, 65_535, 65_536, 65_537, 131_072, 200_000, 1 << 20, 5_000_001, 24 << 20];
    let relays: Vec<_> = sizes
        .into_iter()
        .enumerate()
        .map(|(seed, size)| {
            thread::spawn(move || {
                let sent = Noise::bytes(seed as u64, size);
                let mut stream = connect(address);
                let mut writing = stream.try_clone().unwrap();
                let expected = sent.clone();
                let writer = thread::spawn(move || {
                    // Pieces of many sizes, so that steps are full and short in turn.
                    let mut rest = &sent[..];
                    let mut piece = 1;
                    while !rest.is_empty() {
                        let (now, later) = rest.split_at(piece.min(rest.len()));
                        writing.write_all(now).unwrap();
                        rest = later;
                        piece = (piece * 7 + 11) % 300_000;
                    }
                    writing.shutdown(Shutdown::Write).unwrap();
                });
                let received = read_all(&mut stream);
                writer.join().unwrap();
                assert_eq!(received.len(), expected.len());
                assert!(received == expected, "{size} bytes came back changed");
            })
        })
        .collect();
    relays.into_iter().for_each(|relay| relay.join().unwrap());
    let counts = bed.settle();
    let total: usize = sizes.iter().sum();
    assert_eq!(counts.accepted, sizes.len() as u64);
    assert_eq!((counts.bytes_to_backend, counts.bytes_to_client), (total as u64, total as u64));
    assert_eq!(counts.failed.iter().sum::<u64>(), 0, "{counts:?}");
}

#[test]
fn a_client_that_has_said_all_still_gets_the_answer() {
    let server = Server::new(|mut stream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question)?;
        stream.write_all(&Noise::bytes(question.len() as u64, 3 << 20))
    });
    let mut bed = Bed::new(&[server.address]);
    let mut client = connect(bed.listen());
    client.write_all(&[7; 1000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client) == Noise::bytes(1000, 3 << 20));
    assert_eq!(bed.settle().failed(Failure::Reset), 0);
}

#[test]
fn a_backend_that_has_said_all_still_hears_the_client() {
    let (heard, hears) = mpsc::channel();
    let server = Server::new(move |mut stream| {
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        heard.send(all).map_err(io::Error::other)
    });
    let mut bed = Bed::new(&[server.address]);
    let mut client = connect(bed.listen());
    assert_eq!(read_all(&mut client), b"hello");
    client.write_all(&[1; 100_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap().len(), 100_000);
    bed.settle();
}

#[test]
fn a_backend_may_speak_first() {
    let server = Server::echo();
    let banner = Server::new(|mut stream| {
        stream.write_all(b"220 ready\r\n")?;
        let mut line = [0; 6];
        stream.read_exact(&mut line)?;
        stream.write_all(&line)
    });
    let mut bed = Bed::new(&[banner.address]);
    let mut client = connect(bed.listen());
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    client.write_all(b"QUIT\r\n").unwrap();
    assert_eq!(read_all(&mut client), b"QUIT\r\n");
    drop(server);
}

#[test]
fn a_reset_by_the_client_reaches_the_backend_as_one() {
    let (told, tells) = mpsc::channel();
    let server = Server::new(move |mut stream| {
        let mut all = Vec::new();
        told.send(stream.read_to_end(&mut all).map_err(|error| error.kind())).map_err(io::Error::other)
    });
    let mut bed = Bed::new(&[server.address]);
    let mut client = connect(bed.listen());
    client.write_all(b"half a").unwrap();
    eventually("the connection is made", || (server.accepted() == 1).then_some(()));
    socket::reset(client);
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), Err(io::ErrorKind::ConnectionReset));
    assert_eq!(bed.settle().failed(Failure::Reset), 1);
}

#[test]
fn a_reset_by_the_backend_reaches_the_client_as_one() {
    let server = Server::new(|mut stream| {
        stream.read_exact(&mut [0; 4])?;
        socket::reset(stream);
        Ok(())
    });
    let mut bed = Bed::new(&[server.address]);
    let mut client = connect(bed.listen());
    client.write_all(b"ping").unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(bed.settle().failed(Failure::Reset), 1);
}

#[test]
fn a_reset_passes_a_client_that_does_not_read() {
    let (go, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let server = Server::new(move |mut stream| {
        // More than all buffers on the way take.
        stream.set_nonblocking(true)?;
        let noise = vec![7; 1 << 20];
        while waits.lock().unwrap().try_recv().is_err() {
            let _ = stream.write(&noise);
        }
        socket::reset(stream);
        Ok(())
    });
    let mut bed = Bed::new(&[server.address]);
    let client = connect(bed.listen());
    let stuck = eventually("bytes stop moving", {
        let mut before = 0;
        let mut same = 0;
        let bed = &bed;
        move || {
            let now = bed.counts().bytes_to_client;
            same = if now == before && now > 0 { same + 1 } else { 0 };
            before = now;
            (same > 50).then_some(now)
        }
    });
    assert!(stuck < 64 << 20);
    go.send(()).unwrap();
    assert_eq!(bed.settle().failed(Failure::Reset), 1);
    drop(client);
}

#[test]
fn a_slow_reader_slows_the_writer_and_loses_nothing() {
    const ALL: usize = 96 << 20;
    let (go, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let (sum, sums) = mpsc::channel();
    let server = Server::new(move |mut stream| {
        waits.lock().unwrap().recv().map_err(io::Error::other)?;
        let mut expected = Noise::new(5);
        let (mut buffer, mut noise) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        for _ in 0..ALL / buffer.len() {
            stream.read_exact(&mut buffer)?;
            expected.fill(&mut noise);
            if buffer != noise {
                return sum.send(false).map_err(io::Error::other);
            }
        }
        sum.send(stream.read(&mut buffer)? == 0).map_err(io::Error::other)
    });
    let mut bed = Bed::new(&[server.address]);
    let mut client = connect(bed.listen());
    let written = Arc::new(AtomicUsize::new(0));
    let writer = thread::spawn({
        let written = Arc::clone(&written);
        move || {
            let mut noise = Noise::new(5);
            let mut chunk = vec![0; 64 << 10];
            for _ in 0..ALL / chunk.len() {
                noise.fill(&mut chunk);
                client.write_all(&chunk).unwrap();
                written.fetch_add(chunk.len(), Ordering::SeqCst);
            }
            client.shutdown(Shutdown::Write).unwrap();
            client
        }
    });
    let mut seen = (0, 0);
    let stuck = eventually("the writer is stopped", || {
        let now = written.load(Ordering::SeqCst);
        seen = if now == seen.0 { (now, seen.1 + 1) } else { (now, 0) };
        (seen.1 > 100 && now > 0).then_some(now)
    });
    assert!(stuck < ALL / 2, "{stuck} bytes were taken although nobody reads");
    go.send(()).unwrap();
    assert!(sums.recv_timeout(PATIENCE).unwrap(), "what came is not what was sent");
    drop(writer.join().unwrap());
    assert_eq!(bed.settle().bytes_to_backend, ALL as u64);
}

#[test]
fn urgent_data_neither_stops_the_stream_nor_gets_lost() {
    let server = Server::echo();
    let mut bed = Bed::new(&[server.address]);
    let mut client = connect(bed.listen());
    let mut sent = Vec::new();
    // Around the change to splicing, which urgent data stops in the middle.
    for round in 0..40u8 {
        let noise = Noise::bytes(u64::from(round), 40_000);
        client.write_all(&noise).unwrap();
        socket2::SockRef::from(&client).send_out_of_band(&[round]).unwrap();
        sent.extend(noise);
        sent.push(round);
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client) == sent);
    assert_eq!(bed.settle().failed(Failure::Reset), 0);
}
