//! The UDP flow table: a datagram of a known flow, and a new flow that takes the place of an old one, among as many
//! flows as a busy host has.

use std::convert::Infallible;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use netd_proxy::flows::{End, FlowTable, Key, LaneId, Traffic};

fn flows(c: &mut Criterion) {
    let one = Traffic { datagrams: 1, bytes: 64 };
    let mut group = c.benchmark_group("flow table");
    for count in [64_u32, 4_096] {
        let (mut table, lane) = filled(count);
        let (mut client, now) = (0, Instant::now());
        group.bench_function(format!("datagram of one of {count}"), |bencher| {
            bencher.iter(|| {
                client = (client + 1) % count;
                let flow = table.find(&key(lane, client)).expect("every client has a flow");
                table.client_sent(black_box(flow), one, now);
            });
        });
        group.bench_function(format!("end and open one of {count}"), |bencher| {
            bencher.iter(|| {
                client = (client + 1) % count;
                let flow = table.find(&key(lane, client)).expect("every client has a flow");
                table.end(flow, End::Idle);
                table.open(key(lane, client), now, |_| Ok::<_, Infallible>(0_u64)).expect("there is room");
            });
        });
    }
    group.finish();
}

fn filled(count: u32) -> (FlowTable<u64>, LaneId) {
    let mut table = FlowTable::new(count as usize);
    let lane = table.open_lane(count as usize, Duration::from_secs(30));
    for client in 0..count {
        table.open(key(lane, client), Instant::now(), |_| Ok::<_, Infallible>(0)).expect("there is room");
    }
    (table, lane)
}

fn key(lane: LaneId, client: u32) -> Key {
    let address = Ipv4Addr::from(0x0a00_0000 + client);
    Key { lane, client: (address, 5353).into(), local: Some(Ipv4Addr::LOCALHOST.into()), port: 0 }
}

criterion_group!(benches, flows);
criterion_main!(benches);
