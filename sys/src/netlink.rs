//! Links, addresses, routes and neighbours over one synchronous rtnetlink socket. The functions of the modules below
//! only describe a change (an `Op`); `Rtnl` sends many in one system call, since each change takes the kernel's one
//! rtnl lock and the way there and back is what a batch saves.

use std::fmt;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NetlinkMessage, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::error::{Doing, KernelError};
use crate::netns::Netns;
use channel::{Channel, Frame};

pub mod addr;
pub(crate) mod attr;
pub(crate) mod channel;
#[cfg(feature = "bpf")]
pub(crate) mod diag;
pub mod fdb;
pub mod link;
pub mod monitor;
pub mod neigh;
pub mod qdisc;
pub mod route;
pub mod rule;
#[cfg(test)]
mod tests;
pub mod vxlan;

/// One change, not yet asked for. It may hold the number of a borrowed descriptor, hence the lifetime.
#[derive(Debug)]
pub struct Op<'a> {
    deed: &'static str,
    object: String,
    /// What the kernel takes in one request it does not always do in one.
    messages: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    forgiven: Vec<i32>,
    descriptors: PhantomData<BorrowedFd<'a>>,
}

impl Op<'_> {
    fn new(deed: &'static str, object: impl fmt::Display, flags: u16, message: RouteNetlinkMessage) -> Self {
        let op = Self {
            deed,
            object: object.to_string(),
            messages: vec![],
            forgiven: vec![],
            descriptors: PhantomData,
        };
        op.then(flags, message)
    }

    /// A further step of the same change.
    fn then(mut self, flags: u16, message: RouteNetlinkMessage) -> Self {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.messages.push(message);
        self
    }

    /// These errnos are as good as success: `ENODEV` for a removal that must be repeatable, `EEXIST` for an addition.
    #[must_use]
    pub fn forgiving(mut self, errnos: &[i32]) -> Self {
        self.forgiven.extend(errnos);
        self
    }
}

/// A socket to the kernel's routing family, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct Rtnl {
    channel: Channel,
    outbox: Vec<u8>,
}

impl Rtnl {
    /// In the namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        let channel = Channel::open(NETLINK_ROUTE)?;
        // The kernel then honours the filters of a dump, and refuses what it does not understand.
        channel.socket().set_netlink_get_strict_chk(true).doing("prepare", "the netlink socket")?;
        Ok(Self { channel, outbox: Vec::new() })
    }

    pub fn open_in(netns: &Netns) -> Result<Self, KernelError> {
        netns.run(Self::open)?
    }

    /// Carries out all, in order, and fails with the first that failed. The kernel has no transactions here: what
    /// stands after a failed change in the same batch has been tried as well, and undoing is the caller's.
    pub fn transact(&mut self, ops: Vec<Op<'_>>) -> Result<(), KernelError> {
        self.attempt(ops)?.into_iter().collect()
    }

    /// Carries out all, in order, and says of each how it went. Fails as a whole only when the kernel could not be
    /// asked, or did not answer.
    pub fn attempt(&mut self, mut ops: Vec<Op<'_>>) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let mut results = Vec::with_capacity(ops.len());
        for batch in ops.chunks_mut(BATCH) {
            results.append(&mut self.exchange(batch)?);
        }
        Ok(results)
    }

    fn exchange(&mut self, ops: &mut [Op<'_>]) -> Result<Vec<Result<(), KernelError>>, KernelError> {
        let first = self.channel.reserve(ops.iter().map(|op| op.messages.len()).sum());
        self.outbox.clear();
        // Whose each message is, by its sequence number's distance from the first.
        let mut owners = Vec::new();
        for (place, op) in ops.iter_mut().enumerate() {
            for message in &mut op.messages {
                let sequence = first.wrapping_add(owners.len() as u32);
                append(&mut self.outbox, message, sequence).doing(op.deed, &op.object)?;
                owners.push(place);
            }
        }
        let mut results: Vec<Result<(), KernelError>> = ops.iter().map(|_| Ok(())).collect();
        let Some(start) = ops.first() else { return Ok(results) };
        self.channel.send(&self.outbox).doing(start.deed, &start.object)?;

        let mut unheard = vec![true; owners.len()];
        while let Some(open) = unheard.iter().position(|open| *open) {
            let waiting = &ops[owners[open]];
            let frames = self.channel.receive().map_err(unanswered).doing(waiting.deed, &waiting.object)?;
            for frame in frames {
                // Late answers to a request that timed out carry older numbers.
                let number = frame.sequence.wrapping_sub(first) as usize;
                let (Some(owner), Some(verdict)) = (owners.get(number), frame.verdict()) else { continue };
                unheard[number] = false;
                let (op, result) = (&ops[*owner], &mut results[*owner]);
                if let Err(refusal) = verdict
                    && result.is_ok()
                    && !op.forgiven.contains(&refusal.errno)
                {
                    *result = Err(refusal.of(op.deed, &op.object));
                }
            }
        }
        Ok(results)
    }

    /// Everything the kernel has of a kind. A dump that a change cut across is repeated: half of one list and half of
    /// another is no basis for a decision.
    fn dump<T>(
        &mut self,
        object: &'static str,
        request: RouteNetlinkMessage,
        decode: impl Fn(&Frame<'_>) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(found) = self.dump_once(object, &mut message, &decode)? {
                return Ok(found);
            }
        }
        let cause = io::Error::new(ErrorKind::Interrupted, "they never stood still long enough");
        Err(KernelError::new("list", object, cause))
    }

    fn dump_once<T>(
        &mut self,
        object: &'static str,
        message: &mut NetlinkMessage<RouteNetlinkMessage>,
        decode: impl Fn(&Frame<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, KernelError> {
        let sequence = self.post(message).doing("list", object)?;
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            for frame in self.channel.receive().map_err(unanswered).doing("list", object)? {
                if frame.sequence != sequence {
                    continue;
                }
                whole &= frame.flags & NLM_F_DUMP_INTR == 0;
                match frame.verdict() {
                    Some(Err(refusal)) => return Err(refusal.of("list", object)),
                    Some(Ok(())) if frame.kind == NLMSG_DONE => return Ok(whole.then_some(found)),
                    Some(Ok(())) => {}
                    None => found.extend(decode(&frame)),
                }
            }
        }
    }

    /// One object, if it exists.
    fn ask<T>(
        &mut self,
        object: &str,
        request: RouteNetlinkMessage,
        decode: impl Fn(&Frame<'_>) -> Option<T>,
    ) -> Result<Option<T>, KernelError> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST;
        let sequence = self.post(&mut message).doing("look up", object)?;
        loop {
            for frame in self.channel.receive().map_err(unanswered).doing("look up", object)? {
                if frame.sequence != sequence {
                    continue;
                }
                return match frame.verdict() {
                    Some(Err(refusal)) if refusal.errno == libc::ENODEV => Ok(None),
                    Some(Err(refusal)) => Err(refusal.of("look up", object)),
                    _ => Ok(decode(&frame)),
                };
            }
        }
    }

    fn post(&mut self, message: &mut NetlinkMessage<RouteNetlinkMessage>) -> io::Result<u32> {
        let sequence = self.channel.reserve(1);
        self.outbox.clear();
        append(&mut self.outbox, message, sequence)?;
        self.channel.send(&self.outbox)?;
        Ok(sequence)
    }
}

/// Messages of one datagram start at multiples of four. The length of an attribute has 16 bits, so what is longer, say
/// an absurd name, must not get that far.
pub(crate) fn append<M: NetlinkSerializable>(
    outbox: &mut Vec<u8>,
    message: &mut NetlinkMessage<M>,
    sequence: u32,
) -> io::Result<()> {
    if message.buffer_len() > usize::from(u16::MAX) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    message.header.sequence_number = sequence;
    message.finalize();
    let start = outbox.len();
    outbox.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut outbox[start..]);
    Ok(())
}

pub(crate) fn unanswered(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "the kernel did not answer"),
        _ => error,
    }
}

/// Changes per system call: their answers fit the socket's buffer many times over.
const BATCH: usize = 256;

/// Each attempt takes well under a millisecond for hundreds of links, so this many mean a storm of changes.
const DUMP_ATTEMPTS: usize = 32;
