//! Whatever bytes arrive, reading them ends and does not panic.

use proptest::prelude::*;

use super::channel::{Frame, Frames};
use super::{addr, fdb, link, neigh, route};

/// Attributes that claim any length, in messages of any kind.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let attribute = (0..70_u16, 0..20_u16, prop::collection::vec(any::<u8>(), 0..20))
        .prop_map(|(kind, length, rest)| [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &rest].concat());
    let body = (prop::collection::vec(any::<u8>(), 0..24), prop::collection::vec(attribute, 0..8));
    let message =
        (0..60_u16, any::<u16>(), -4..4_i32, body).prop_map(|(kind, flags, error, (header, attributes))| {
            let body = [header, attributes.concat()].concat();
            let length = (16 + body.len() as i32 + error) as u32;
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], &body].concat()
        });
    prop::collection::vec(message, 0..4).prop_map(|messages| messages.concat())
}

fn read(frame: &Frame<'_>) {
    let _ = (
        frame.verdict(),
        link::decode(frame),
        addr::decode(frame),
        route::decode(frame),
        neigh::decode(frame),
        fdb::decode(frame),
    );
}

proptest! {
    #[test]
    fn malformed_datagrams_are_survived(bytes in datagram()) {
        Frames::of(&bytes).for_each(|frame| read(&frame));
    }

    #[test]
    fn so_is_noise(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        Frames::of(&bytes).for_each(|frame| read(&frame));
        read(&Frame { kind: 2, flags: 0xffff, sequence: 0, port: 0, payload: &bytes });
    }
}
