//! A message that is larger than a packet goes in pieces, each a packet of its own with a byte in front that no list of
//! messages begins with. They come one after another on a link that keeps its order, so the receiver needs to know no
//! more than whether another follows. What it holds meanwhile is bounded, and a sequence that is broken off ends the link.
//!
//! Only who has said in its greeting that it takes that much is sent any: see [`super::frame::Reply::Hello`].

use std::borrow::Cow;

/// The largest message that is put together. A service of a hundred thousand backends has half as much.
pub(crate) const MAX_MESSAGE: usize = 32 << 20;
/// Bytes of a piece: as much as a packet of small messages has, so that no send needs a large buffer of the kernel's.
const PIECE: usize = 64 << 10;

const MORE: u8 = b'+';
const LAST: u8 = b'.';

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PieceError {
    #[error("a message in pieces has more than {MAX_MESSAGE} bytes")]
    TooLong,
    #[error("a message in pieces was broken off by another packet")]
    BrokenOff,
    #[error("a piece of a message came with descriptors")]
    Descriptors,
}

/// The packets of one message list that is too large for one.
pub(super) fn cut(list: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let last = list.len().div_ceil(PIECE).saturating_sub(1);
    list.chunks(PIECE).enumerate().map(move |(number, piece)| {
        let mark = if number == last { LAST } else { MORE };
        [&[mark], piece].concat()
    })
}

/// Puts pieces together.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Vec<u8>);

impl Pieces {
    /// The list of messages that a packet has, or completes. None: its other pieces are still to come.
    pub(crate) fn join<'a>(
        &mut self,
        packet: &'a [u8],
        has_descriptors: bool,
    ) -> Result<Option<Cow<'a, [u8]>>, PieceError> {
        let (is_last, piece) = match packet.split_first() {
            Some((&MORE, piece)) => (false, piece),
            Some((&LAST, piece)) => (true, piece),
            _ if !self.0.is_empty() => return Err(PieceError::BrokenOff),
            _ => return Ok(Some(Cow::Borrowed(packet))),
        };
        if has_descriptors {
            return Err(PieceError::Descriptors);
        }
        if self.0.len() + piece.len() > MAX_MESSAGE {
            return Err(PieceError::TooLong);
        }
        self.0.extend_from_slice(piece);
        Ok(is_last.then(|| Cow::Owned(std::mem::take(&mut self.0))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::MAX_PACKET;
    use super::*;

    fn joined(pieces: &mut Pieces, packet: &[u8]) -> Option<Vec<u8>> {
        pieces.join(packet, false).expect("a good sequence").map(Cow::into_owned)
    }

    #[test]
    fn a_list_is_put_together_as_it_was_and_small_ones_pass_between() {
        let mut pieces = Pieces::default();
        for length in [PIECE, PIECE + 1, MAX_PACKET + 7, 3 * MAX_PACKET] {
            let list: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            let packets: Vec<_> = cut(&list).collect();
            assert!(packets.iter().all(|packet| packet.len() <= MAX_PACKET));
            let (last, rest) = packets.split_last().expect("packets");
            assert!(rest.iter().all(|packet| joined(&mut pieces, packet).is_none()));
            assert!(joined(&mut pieces, last).is_some_and(|whole| whole == list), "of {length}");
            assert_eq!(joined(&mut pieces, b"[]").as_deref(), Some(&b"[]"[..]));
        }
    }

    #[test]
    fn what_is_broken_off_endless_or_brings_descriptors_is_an_error() {
        let mut pieces = Pieces::default();
        assert!(joined(&mut pieces, b"+[").is_none());
        assert_eq!(pieces.join(b"[]", false), Err(PieceError::BrokenOff));
        assert_eq!(pieces.join(b"", false), Err(PieceError::BrokenOff));
        assert_eq!(Pieces::default().join(b".[]", true), Err(PieceError::Descriptors));

        let mut pieces = Pieces::default();
        let piece = [&[MORE], &[b' '; PIECE][..]].concat();
        let taken = (0..).take_while(|_| pieces.join(&piece, false).is_ok()).count();
        assert_eq!(taken, MAX_MESSAGE / PIECE);
        assert_eq!(pieces.join(&piece, false), Err(PieceError::TooLong));
        assert!(pieces.0.len() <= MAX_MESSAGE);
    }

    proptest! {
        #[test]
        fn any_packets_hold_no_more_than_they_may(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..50)) {
            let mut pieces = Pieces::default();
            let mut came = 0;
            for packet in &packets {
                came += packet.len();
                if let Ok(Some(whole)) = pieces.join(packet, false) {
                    prop_assert!(whole.len() <= came);
                }
                prop_assert!(pieces.0.len() <= came);
            }
        }
    }
}
