//! The records of one entry, in the order whose turn it is: as many whole ones as fit, so that everybody's share of cut
//! answers is the same. What does not fit is not looked at.

use crate::entry::{Entry, Place};
use crate::index::{Index, ViewKey};
use crate::name::{MAX_WIRE_NAME, WireName};
use crate::parse::rtype;
use crate::reply::{self, Reply};

/// The type that answers for `qtype`. RFC 8482: one is answer enough for ANY.
pub(super) fn wanted(entry: &Entry, qtype: u16) -> u16 {
    match qtype {
        rtype::ANY if !entry.v4.is_empty() => rtype::A,
        rtype::ANY if !entry.v6.is_empty() => rtype::AAAA,
        rtype::ANY => rtype::SRV,
        other => other,
    }
}

/// Whether there are any.
pub(super) fn addresses(entry: &mut Entry, family: u16, reply: &mut Reply<'_, '_>, owner: &[u8]) -> bool {
    match family {
        rtype::A => {
            let (after, first) = entry.v4.split_at(entry.turn_v4.take(entry.v4.len()));
            let mut turn = first.iter().chain(after);
            turn.all(|address| reply.answer(owner, family, &address.octets()).is_some());
            !entry.v4.is_empty()
        }
        rtype::AAAA => {
            let (after, first) = entry.v6.split_at(entry.turn_v6.take(entry.v6.len()));
            let mut turn = first.iter().chain(after);
            turn.all(|address| reply.answer(owner, family, &address.octets()).is_some());
            !entry.v6.is_empty()
        }
        _ => false,
    }
}

/// The records from the `first` on, with the addresses of their targets.
pub(super) fn services(
    index: &mut Index,
    view: ViewKey,
    (places, first, suffix): (&[Place], usize, Option<&str>),
    reply: &mut Reply<'_, '_>,
    owner: &[u8],
) {
    let in_turn = || places[first..].iter().chain(&places[..first]);
    let mut data = [0; 6 + MAX_WIRE_NAME];
    let start = reply.len();
    for place in in_turn() {
        // A target that cannot be said is of no use to anybody.
        let Some(target) = target(place, suffix) else { continue };
        let (numbers, name) = data.split_at_mut(6);
        let words = [place.srv.priority, place.srv.weight, place.srv.port];
        numbers.chunks_exact_mut(2).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_be_bytes()));
        name[..target.as_bytes().len()].copy_from_slice(target.as_bytes());
        if reply.answer(owner, rtype::SRV, &data[..6 + target.as_bytes().len()]).is_none() {
            return;
        }
    }
    let mut at = start;
    for (step, place) in in_turn().enumerate() {
        let Some(target) = target(place, suffix) else { continue };
        let name_at = at + owner.len() + 10 + 6;
        at = name_at + target.as_bytes().len();
        if place.distance > step && !target_addresses(index, view, (&target, name_at), first, reply) {
            return;
        }
    }
}

fn target(place: &Place, suffix: Option<&str>) -> Option<WireName> {
    match place.srv.target.strip_suffix('.') {
        Some(absolute) => WireName::of([absolute]),
        None => WireName::of([Some(&*place.srv.target), suffix].into_iter().flatten()),
    }
}

/// All addresses of a target that is in the tables, or none: part of them would pass for the whole. False when there is no
/// more room.
fn target_addresses(
    index: &mut Index,
    view: ViewKey,
    (target, name_at): (&WireName, usize),
    turn: usize,
    reply: &mut Reply<'_, '_>,
) -> bool {
    let Some(found) = index.find(view, &target.dotted()) else { return true };
    let Entry { v4, v6, .. } = found.entry;
    let pointer = reply::pointer(name_at);
    let owner = pointer.as_ref().map_or(target.as_bytes(), <[u8; 2]>::as_slice);
    if v4.len() * (owner.len() + 14) + v6.len() * (owner.len() + 26) > reply.room() {
        return false;
    }
    let (after, first) = v4.split_at(turn % v4.len().max(1));
    first.iter().chain(after).for_each(|address| {
        reply.additional(owner, rtype::A, &address.octets());
    });
    let (after, first) = v6.split_at(turn % v6.len().max(1));
    first.iter().chain(after).for_each(|address| {
        reply.additional(owner, rtype::AAAA, &address.octets());
    });
    true
}
