//! A table as plain data, of the `inet` family or of `bridge`, which sees frames: what `nft list table` would print. Built by pure functions elsewhere,
//! compared, printed, and handed whole to `Nft::replace`.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use super::survey::Family;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

/// How a table is found: the same name may stand in several families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    pub family: Family,
    pub name: &'a str,
}

impl<'a> From<&'a str> for Named<'a> {
    fn from(name: &'a str) -> Self {
        Self { family: Family::Inet, name }
    }
}

impl<'a> From<&'a Table> for Named<'a> {
    fn from(table: &'a Table) -> Self {
        Self { family: table.family, name: &table.name }
    }
}

/// What becomes different in a set: removals first.
#[derive(Clone, Copy, Debug)]
pub struct SetChange<'a> {
    pub set: &'a str,
    pub add: &'a [Element],
    pub remove: &'a [Element],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// Where packets enter it; none for a chain that is only jumped to.
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    /// Lower comes first; conntrack is at -200, filters at 0, source NAT at 100.
    pub priority: i32,
    /// Whether what no rule decided goes on.
    pub accept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Its parts from left to right: the first match that fails ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub parts: Vec<Part>,
    /// Shown by `nft list`; at most 127 bytes.
    pub comment: Option<String>,
}

impl Rule {
    pub fn new(parts: Vec<Part>) -> Self {
        Self { parts, comment: None }
    }

    #[must_use]
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.comment = Some(text.into());
        self
    }
}

/// A match or an action. What a match presumes (`ip saddr`: that it is IPv4) is added by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The field has this value, or lies in this network.
    Is(Field, Value),
    IsNot(Field, Value),
    /// The fields, joined, are in the named set.
    In(Vec<Field>, String),
    NotIn(Vec<Field>, String),
    /// The verdict that the named map has for the fields, joined; none, and the rule goes on.
    Map(Vec<Field>, String),
    /// The packet is of this version of IP.
    Version(IpVersion),
    /// The packet is to an address of this host.
    ToHost,
    /// The second half of the packet's mark is this, see [`crate::datagram::mark_of`].
    Marked([u8; 2]),
    /// It belongs to a socket of this host whose address need not be one of the host.
    Transparent,
    /// The connection is in one of these states (`ct_state`).
    Connection(u32),
    /// The packet opens a TCP connection, or agrees to one.
    TcpSyn,
    /// The packet opens a TCP connection.
    TcpOpens,
    /// ARP of addresses of IPv4 on Ethernet.
    ArpForm,
    Counter,
    /// Keeps the packet out of connection tracking; only in chains before priority -200.
    Notrack,
    /// Rewrites a port in the packet itself, checksum included: no connection tracking, so each direction needs its own.
    SetPort(End, Transport, u16),
    /// Makes the first half of the packet's mark its source port; each direction needs its own, as with `SetPort`.
    SetSourcePortFromMark(Transport),
    SetMark(u32),
    /// Leads the packet to the socket on this address, as if that were where the packet is sent to, without changing it.
    /// In prerouting only; the socket has to be transparent.
    Tproxy(SocketAddr),
    /// Limits what the TCP option of a SYN promises; see `TcpSyn`.
    SetMaxSegment(MaxSegment),
    Masquerade,
    /// Answers as if nobody listened: with a reset, or that the port is unreachable.
    Refuse(Transport),
    Verdict(Verdict),
}

/// What can be matched in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Iifname,
    Oifname,
    /// `meta l4proto`.
    Protocol,
    Ip4(End),
    Ip6(End),
    Port(End, Transport),
    EtherSource,
    /// As it stands in the frame: that of a VLAN where it has a tag.
    EtherType,
    ArpSender,
    ArpSenderIp4,
    /// Bytes of payload that the header of IPv6 tells.
    Ip6Length,
    Icmp6Type,
    /// The address that neighbour discovery is about.
    NeighbourTarget,
    /// Kind and length of the first option of neighbour discovery.
    NeighbourOption,
    /// The link-layer address that stands in it.
    NeighbourMac,
}

/// Of the two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxSegment {
    Bytes(u16),
    /// As the MTU of the packet's route allows.
    OfRoute,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// Of a link, at most 15 bytes.
    Name(String),
    /// How a link's name begins; in matches, not in sets.
    Prefix(String),
    Address(IpAddr),
    /// In a set with intervals every address is written as a network, a single one as /32 or /128.
    Network(IpNetwork),
    Port(u16),
    Protocol(u8),
    Mac([u8; 6]),
    EtherType(u16),
    Number(u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// A named set, or a map from keys to verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    /// More than one: keys are joined from values of these types.
    pub key: Vec<Type>,
    /// Whether keys are networks.
    pub intervals: bool,
    /// Whether elements carry verdicts.
    pub map: bool,
    pub elements: Vec<Element>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Name,
    Ip4,
    Ip6,
    Port,
    Protocol,
    Mac,
    EtherType,
    Icmp6,
    /// Two bytes that no other type is for; in matches, not in sets.
    Number,
}

/// A key, and in a map its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<Value>,
    pub verdict: Option<Verdict>,
}

impl Element {
    pub fn key(key: Vec<Value>) -> Self {
        Self { key, verdict: None }
    }
}

/// For `Part::Connection`, to be joined with `|`.
pub mod ct_state {
    pub const INVALID: u32 = 1;
    pub const ESTABLISHED: u32 = 2;
    pub const RELATED: u32 = 4;
    pub const NEW: u32 = 8;
    pub const UNTRACKED: u32 = 64;
}
