//! nftables without a program in between: whole tables replaced, elements added and removed, each in one transaction
//! of the kernel. Nothing is read back and patched: a table that somebody damaged is written anew.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as KernelHook, HookNumber, InetHookNumber, NfTablesMessage,
    SetElementMessage, TableAttribute, TableMessage, Verdict as KernelVerdict, VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::error::{Doing, KernelError};
use crate::netlink::attr::{attributes, text};
use crate::netlink::channel::{Channel, Frame, Refusal};
use crate::netlink::{append, unanswered};
use crate::netns::Netns;
pub use survey::{Family, Hooked, Passage};
pub use table::{
    Base, Chain, ChainKind, Element, End, Field, Hook, IpVersion, MaxSegment, Named, Part, Rule, Set,
    SetChange, Table, Transport, Type, Value, Verdict, ct_state,
};

mod counters;
mod rule;
mod set;
mod survey;
mod table;

/// A socket to the nftables of the namespace it was opened in.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
}

impl Nft {
    /// In the namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { channel: Channel::open(NETLINK_NETFILTER)? })
    }

    pub fn open_in(netns: &Netns) -> Result<Self, KernelError> {
        netns.run(Self::open)?
    }

    /// Stands in every notification of a change made through this socket, so that a watcher can tell its own.
    pub fn port(&self) -> u32 {
        self.channel.port()
    }

    /// Makes the table exactly this, whatever was there: at once, so that no packet sees half of it. The kernel lets go
    /// of the old one in the background, and has the closing of this socket wait for that (some 10 ms).
    pub fn replace(&mut self, table: &Table) -> Result<(), KernelError> {
        let name = &table.name;
        let mut batch = Batch::of(table.family);
        // Removing needs something to remove, hence the first addition.
        batch.push("create the table", name, NLM_F_CREATE, NfTablesMessage::NewTable(named(name)));
        batch.push("clear the table", name, 0, NfTablesMessage::DeleteTable(named(name)));
        batch.push("create the table", name, NLM_F_CREATE, NfTablesMessage::NewTable(named(name)));
        self.fill(batch, table)
    }

    /// Makes the table where there is most likely none: nothing is let go of, so nothing is waited for.
    pub fn create(&mut self, table: &Table) -> Result<(), KernelError> {
        let mut batch = Batch::of(table.family);
        let message = NfTablesMessage::NewTable(named(&table.name));
        batch.push("create the table", &table.name, NLM_F_CREATE | NLM_F_EXCL, message);
        match self.fill(batch, table) {
            Err(error) if error.errno() == Some(libc::EEXIST) => self.replace(table),
            other => other,
        }
    }

    fn fill(&mut self, mut batch: Batch, table: &Table) -> Result<(), KernelError> {
        let name = &table.name;
        // Verdicts in maps speak of chains, rules of chains and sets: in this order nothing is missing.
        for chain in &table.chains {
            let message = NfTablesMessage::NewChain(chain_message(name, chain));
            batch.push("create the chain", format!("{} of table {name}", chain.name), NLM_F_CREATE, message);
        }
        for (set, id) in table.sets.iter().zip(1..) {
            let object = format!("{} of table {name}", set.name);
            let message = NfTablesMessage::NewSet(set::message(name, set, id));
            batch.push("create the set", &object, NLM_F_CREATE, message);
            batch.elements("fill the set", name, &set.name, &set.elements, NfTablesMessage::NewSetElement);
        }
        for chain in &table.chains {
            for (rule, number) in chain.rules.iter().zip(1..) {
                let object = format!("number {number} of chain {} of table {name}", chain.name);
                let message =
                    rule::message(table.family, name, &chain.name, rule).doing("write the rule", &object)?;
                let flags = NLM_F_CREATE | NLM_F_APPEND;
                batch.push("add the rule", object, flags, NfTablesMessage::NewRule(message));
            }
        }
        self.commit(batch)
    }

    /// Removes the table; none there is no error.
    pub fn delete<'a>(&mut self, table: impl Into<Named<'a>>) -> Result<(), KernelError> {
        let Named { family, name } = table.into();
        let mut batch = Batch::of(family);
        batch.push("delete the table", name, 0, NfTablesMessage::DeleteTable(named(name)));
        match self.commit(batch) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// All or none; elements that are there already with the same verdict are no error.
    pub fn add_elements<'a>(
        &mut self,
        table: impl Into<Named<'a>>,
        set: &str,
        elements: &[Element],
    ) -> Result<(), KernelError> {
        self.change(table, &[SetChange { set, add: elements, remove: &[] }])
    }

    /// All or none: one that is not there is `ENOENT`.
    pub fn del_elements<'a>(
        &mut self,
        table: impl Into<Named<'a>>,
        set: &str,
        elements: &[Element],
    ) -> Result<(), KernelError> {
        self.change(table, &[SetChange { set, add: &[], remove: elements }])
    }

    /// Several sets of one table at once, all or none.
    pub fn change<'a>(
        &mut self,
        table: impl Into<Named<'a>>,
        changes: &[SetChange<'_>],
    ) -> Result<(), KernelError> {
        let Named { family, name } = table.into();
        let mut batch = Batch::of(family);
        for SetChange { set, add, remove } in changes {
            batch.elements("remove from the set", name, set, remove, NfTablesMessage::DeleteSetElement);
            batch.elements("add to the set", name, set, add, NfTablesMessage::NewSetElement);
        }
        self.commit(batch)
    }

    pub fn exists(&mut self, table: &str) -> Result<bool, KernelError> {
        Ok(self.tables()?.iter().any(|name| name == table))
    }

    /// The names of all tables of the family `inet`.
    pub fn tables(&mut self) -> Result<Vec<String>, KernelError> {
        let message = NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
        let request = framed_for(NetfilterProtoFamily::Inet, message);
        self.dump("the nftables tables", request, table_name)
    }

    /// Everything the kernel has of a kind.
    fn dump<T>(
        &mut self,
        object: &'static str,
        mut request: NetlinkMessage<NetfilterMessage>,
        decode: impl Fn(&Frame<'_>) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let sequence = self.channel.reserve(1);
        let mut outbox = Vec::new();
        append(&mut outbox, &mut request, sequence).doing("list", object)?;
        self.channel.send(&outbox).doing("list", object)?;
        let mut found = Vec::new();
        loop {
            for frame in self.channel.receive().map_err(unanswered).doing("list", object)? {
                match frame.verdict() {
                    _ if frame.sequence != sequence => {}
                    Some(Ok(())) => return Ok(found),
                    Some(Err(refusal)) => return Err(refusal.of("list", object)),
                    None => found.extend(decode(&frame)),
                }
            }
        }
    }

    /// One transaction. Errors come for every message that failed; the first one tells the story.
    fn commit(&mut self, mut batch: Batch) -> Result<(), KernelError> {
        let Some(last) = batch.items.last_mut() else { return Ok(()) };
        // Only this one need say that it went well: by then the rest has, or has complained.
        last.message.header.flags |= NLM_F_ACK;
        let (first, count) = (self.channel.reserve(batch.items.len() + 2), batch.items.len() as u32);
        let outbox = batch.serialize(first)?;
        let Batch { items, .. } = batch;
        let start = &items[0];
        self.channel.send(&outbox).doing(start.deed, &start.object)?;

        let mut failure: Option<KernelError> = None;
        loop {
            for frame in self.channel.receive().map_err(unanswered).doing(start.deed, &start.object)? {
                let place = frame.sequence.wrapping_sub(first);
                let Some(verdict) = frame.verdict().filter(|_| place <= count) else { continue };
                let whole = place == 0;
                if let Err(refusal) = verdict {
                    let item = &items[place.saturating_sub(1) as usize];
                    failure.get_or_insert_with(|| refused(refusal, item, whole));
                }
                // What concerns the batch as a whole is said of its first message, and then nothing else follows.
                if place == count || whole && failure.is_some() {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }
}

fn refused(refusal: Refusal, item: &Item, whole: bool) -> KernelError {
    if whole { refusal.of("change", "nftables") } else { refusal.of(item.deed, &item.object) }
}

/// Messages that take effect together or not at all.
struct Batch {
    family: Family,
    items: Vec<Item>,
}

struct Item {
    deed: &'static str,
    object: String,
    message: NetlinkMessage<NetfilterMessage>,
}

impl Batch {
    fn of(family: Family) -> Self {
        Self { family, items: Vec::new() }
    }

    fn push(&mut self, deed: &'static str, object: impl Into<String>, flags: u16, message: NfTablesMessage) {
        let mut message = framed_for(self.family.number(), message);
        message.header.flags = NLM_F_REQUEST | flags;
        self.items.push(Item { deed, object: object.into(), message });
    }

    fn elements(
        &mut self,
        deed: &'static str,
        table: &str,
        set: &str,
        elements: &[Element],
        wrap: fn(SetElementMessage) -> NfTablesMessage,
    ) {
        for message in set::elements(table, set, elements) {
            self.push(deed, format!("{set} of table {table}"), NLM_F_CREATE, wrap(message));
        }
    }

    fn serialize(&mut self, first: u32) -> Result<Vec<u8>, KernelError> {
        let mut outbox = Vec::new();
        let edge = |outbox: &mut Vec<u8>, message: ControlMessage, sequence| {
            let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
            let mut message = NetlinkMessage::from(NetfilterMessage::new(header, message));
            message.header.flags = NLM_F_REQUEST;
            append(outbox, &mut message, sequence).doing("change", "nftables")
        };
        edge(&mut outbox, ControlMessage::BatchBegin, first)?;
        let mut sequence = first;
        for item in &mut self.items {
            sequence = sequence.wrapping_add(1);
            append(&mut outbox, &mut item.message, sequence).doing(item.deed, &item.object)?;
        }
        edge(&mut outbox, ControlMessage::BatchEnd, sequence.wrapping_add(1))?;
        Ok(outbox)
    }
}

fn framed_for(family: NetfilterProtoFamily, message: NfTablesMessage) -> NetlinkMessage<NetfilterMessage> {
    let header = NetfilterHeader::new(family, 0, 0);
    NetlinkMessage::from(NetfilterMessage::new(header, NetfilterMessageInner::from(message)))
}

fn named(table: &str) -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(table.to_owned())] }
}

fn chain_message(table: &str, chain: &Chain) -> ChainMessage {
    let mut attributes =
        vec![ChainAttribute::Table(table.to_owned()), ChainAttribute::Name(chain.name.clone())];
    if let Some(base) = chain.base {
        let number = match base.hook {
            Hook::Prerouting => InetHookNumber::PreRouting,
            Hook::Input => InetHookNumber::LocalIn,
            Hook::Forward => InetHookNumber::Forward,
            Hook::Output => InetHookNumber::LocalOut,
            Hook::Postrouting => InetHookNumber::PostRouting,
        };
        let kind = match base.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        attributes.push(ChainAttribute::Type(kind.to_owned()));
        attributes.push(ChainAttribute::Hook(vec![
            KernelHook::Number(HookNumber::Inet(number)),
            KernelHook::Priority(base.priority.cast_unsigned()),
        ]));
        attributes.push(ChainAttribute::Policy(if base.accept { ACCEPT } else { DROP }));
    }
    ChainMessage { attributes }
}

fn verdict(verdict: &Verdict) -> Vec<VerdictAttribute> {
    let (code, chain) = match verdict {
        Verdict::Accept => (KernelVerdict::Other(ACCEPT), None),
        Verdict::Drop => (KernelVerdict::Other(DROP), None),
        Verdict::Return => (KernelVerdict::Return, None),
        Verdict::Jump(chain) => (KernelVerdict::Jump, Some(chain)),
        Verdict::Goto(chain) => (KernelVerdict::Goto, Some(chain)),
    };
    let mut attributes = vec![VerdictAttribute::Code(code)];
    attributes.extend(chain.map(|name| VerdictAttribute::Chain(name.clone())));
    attributes
}

fn table_name(frame: &Frame<'_>) -> Option<String> {
    attributes(frame.payload, HEADER).find(|(kind, _)| *kind == TABLE_NAME).map(|(_, value)| text(value))
}

const DROP: u32 = libc::NF_DROP as u32;
const ACCEPT: u32 = libc::NF_ACCEPT as u32;
const NFTABLES: u16 = 10; // NFNL_SUBSYS_NFTABLES
const HEADER: usize = 4;
const TABLE_NAME: u16 = 1;
