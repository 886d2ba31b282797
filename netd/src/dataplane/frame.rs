//! What the two processes say to each other. A packet is a JSON array of messages; the descriptors beside it belong to
//! its messages in order, each saying how many are its own.
//!
//! JSON, because the two sides need not be of one build: what a side does not know it skips, be it a field or a whole
//! message. A change that an older peer would misread raises [`PROTOCOL`], and the peers then part. A message that is too
//! large for a packet goes in [`pieces`](super::pieces), to a peer that takes them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use netd_sys::seqpacket::MAX_FDS;

use super::pieces::{self, MAX_MESSAGE};
use super::stats::Stats;
use crate::tables::Change;

pub(crate) const PROTOCOL: u32 = 1;

/// Messages are gathered into packets up to this size; one larger message has packets of its own.
const CHUNK: usize = 64 << 10;
/// Of a message that cannot be sent: enough to tell which object it is of.
const START: usize = 160;
/// No packet is larger; also the size of the receive buffer.
pub(crate) const MAX_PACKET: usize = 1 << 20;

/// Names a socket over restarts of either process: `tcp/0.0.0.0:8080` (the listener's id), `steer/tcp4` (the
/// funnel's) or `dns/<view>`.
pub(crate) type SocketKey = Arc<str>;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum SocketUse {
    /// Of the proxy's listener, or funnel, with the key as its id.
    Listener,
    /// No socket: something that is in force as long as one of the two processes holds it. Replaces what came under the
    /// same key.
    Keep,
    /// Of the view after `dns/` in the key.
    Dns(netd_dns::table::SocketUse),
}

/// Sockets on their way, all of one key and use.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub key: SocketKey,
    pub used: SocketUse,
    pub fds: Vec<OwnedFd>,
}

/// From the control plane to the data plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Request {
    Hello {
        protocol: u32,
        build: String,
    },
    /// Opens a batch; `full`: what is not put by it is to be dropped.
    Begin {
        revision: u64,
        full: bool,
    },
    /// Sockets for a change of the same batch or, outside of one, for the server as it is.
    Sockets {
        key: SocketKey,
        used: SocketUse,
        count: usize,
    },
    Change {
        change: Change,
    },
    /// Applies the batch. Answered by [`Reply::Applied`] when it is served.
    Commit {
        revision: u64,
    },
    Stats {
        id: u64,
    },
    LogFilter {
        filter: String,
    },
    /// Serves open connections until they end or the time is over, takes no new ones, and exits.
    Drain {
        milliseconds: u64,
    },
    /// Exits at once.
    Stop,
    #[serde(other)]
    Unknown,
}

/// From the data plane to the control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Reply {
    Hello {
        protocol: u32,
        build: String,
        #[serde(default)]
        pid: u32,
        revision: u64,
        /// Bytes of the largest message that it takes.
        #[serde(default = "one_packet")]
        largest: usize,
    },
    /// Sockets that the data plane serves; after the last one comes [`Reply::InventoryEnd`].
    Inventory {
        key: SocketKey,
        used: SocketUse,
        count: usize,
    },
    InventoryEnd,
    Applied {
        revision: u64,
        error: Option<String>,
    },
    /// A part of the figures that were asked for; after the last one comes [`Reply::StatsEnd`].
    Stats {
        id: u64,
        part: Box<Stats>,
    },
    StatsEnd {
        id: u64,
    },
    /// What a health check has found of a backend: every verdict that there is after the inventory, and each change.
    /// Whoever has read it all knows them all, however often the link was lost.
    Health {
        service: Arc<str>,
        backend: Arc<str>,
        well: bool,
        /// Why it is not, in words for people.
        #[serde(default)]
        why: Option<Arc<str>>,
    },
    /// The DNS server has used up a view's upstream sockets of this kind.
    NeedSockets {
        key: SocketKey,
        used: SocketUse,
    },
    #[serde(other)]
    Unknown,
}

/// What a peer takes that does not say it.
const fn one_packet() -> usize {
    MAX_PACKET
}

/// Something that may own descriptors of its packet.
pub(crate) trait Message: DeserializeOwned {
    fn descriptors(&self) -> usize;
}

impl Message for Request {
    fn descriptors(&self) -> usize {
        if let Self::Sockets { count, .. } = self { *count } else { 0 }
    }
}

impl Message for Reply {
    fn descriptors(&self) -> usize {
        if let Self::Inventory { count, .. } = self { *count } else { 0 }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message of {length} bytes is more than the {most} that the other side takes: {start}...")]
    TooLong { length: usize, most: usize, start: String },
    #[error("the packet is not a list of messages")]
    Syntax(#[from] serde_json::Error),
    #[error("the packet's messages speak of {expected} descriptors, {came} came")]
    Descriptors { expected: usize, came: usize },
}

/// What one send takes. The descriptors are closed when it has been sent.
#[derive(Debug, Default)]
pub(crate) struct Packet {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// Gathers messages into packets.
pub(crate) struct Packer {
    done: Vec<Packet>,
    open: Packet,
    largest: usize,
}

impl Default for Packer {
    /// For any peer.
    fn default() -> Self {
        Self::to(MAX_PACKET)
    }
}

impl Packer {
    /// For one that takes messages of so many bytes.
    pub(crate) fn to(largest: usize) -> Self {
        let largest = largest.clamp(MAX_PACKET, MAX_MESSAGE);
        Self { done: Vec::new(), open: Packet::default(), largest }
    }

    pub(crate) fn push(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        self.put(message, Vec::new())
    }

    /// Pushes `sockets`, as many messages as they need; `message` wraps key, use and count.
    pub(crate) fn push_sockets<M: Serialize>(
        &mut self,
        sockets: Sockets,
        message: impl Fn(SocketKey, SocketUse, usize) -> M,
    ) -> Result<(), FrameError> {
        let Sockets { key, used, mut fds } = sockets;
        while !fds.is_empty() {
            let rest = fds.split_off(fds.len().min(MAX_FDS));
            self.put(&message(Arc::clone(&key), used, fds.len()), fds)?;
            fds = rest;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Vec<Packet> {
        self.close();
        self.done
    }

    fn put(&mut self, message: &impl Serialize, fds: Vec<OwnedFd>) -> Result<(), FrameError> {
        let json = serde_json::to_vec(message)?;
        let length = json.len() + 2;
        if length > self.largest {
            let start = String::from_utf8_lossy(&json[..START.min(json.len())]).into_owned();
            return Err(FrameError::TooLong { length, most: self.largest, start });
        }
        if length > MAX_PACKET {
            // Nothing that large has descriptors.
            self.close();
            let list = [b"[", &json[..], b"]"].concat();
            self.done.extend(pieces::cut(&list).map(|bytes| Packet { bytes, fds: Vec::new() }));
            return Ok(());
        }
        if self.open.bytes.len() + json.len() + 2 > CHUNK || self.open.fds.len() + fds.len() > MAX_FDS {
            self.close();
        }
        self.open.bytes.push(if self.open.bytes.is_empty() { b'[' } else { b',' });
        self.open.bytes.extend_from_slice(&json);
        self.open.fds.extend(fds);
        Ok(())
    }

    fn close(&mut self) {
        if !self.open.bytes.is_empty() {
            let mut packet = std::mem::take(&mut self.open);
            packet.bytes.push(b']');
            self.done.push(packet);
        }
    }
}

/// The messages of one packet, each with its descriptors.
pub(crate) fn decode<M: Message>(
    bytes: &[u8],
    fds: Vec<OwnedFd>,
) -> Result<Vec<(M, Vec<OwnedFd>)>, FrameError> {
    let messages: Vec<M> = serde_json::from_slice(bytes)?;
    let expected = messages.iter().fold(0usize, |sum, message| sum.saturating_add(message.descriptors()));
    if expected != fds.len() {
        return Err(FrameError::Descriptors { expected, came: fds.len() });
    }
    let mut fds = fds.into_iter();
    Ok(messages
        .into_iter()
        .map(|message| {
            let own = fds.by_ref().take(message.descriptors()).collect();
            (message, own)
        })
        .collect())
}

#[cfg(test)]
mod tests;
