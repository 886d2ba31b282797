//! What the tables of others do where packets pass: their base chains, and the rules that let a link's packets through.
//! Read for people to look at; nothing is decided by it, and nothing of it is changed.

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{ChainMessage, NfTablesMessage, RuleMessage};

use super::{ACCEPT, HEADER, Hook, Nft, framed_for};
use crate::error::KernelError;
use crate::netlink::attr::{attributes, text};
use crate::netlink::channel::Frame;

/// The families whose tables see packets of IP, or the frames they travel in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    #[default]
    Inet,
    Ip,
    Ip6,
    Bridge,
}

impl Family {
    /// As `nft` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Bridge => "bridge",
        }
    }

    pub(super) const fn number(self) -> NetfilterProtoFamily {
        match self {
            Self::Inet => NetfilterProtoFamily::Inet,
            Self::Ip => NetfilterProtoFamily::IPv4,
            Self::Ip6 => NetfilterProtoFamily::IPv6,
            Self::Bridge => NetfilterProtoFamily::Bridge,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Inet),
            2 => Some(Self::Ip),
            7 => Some(Self::Bridge),
            10 => Some(Self::Ip6),
            _ => None,
        }
    }
}

/// A chain that packets enter by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooked {
    pub family: Family,
    pub table: String,
    pub chain: String,
    /// `filter`, `nat`, `route`.
    pub kind: String,
    pub hook: Hook,
    pub priority: i32,
    /// Whether what no rule decided goes on.
    pub accept: bool,
}

/// A rule that accepts what came in by a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    pub family: Family,
    pub table: String,
    /// The link's name, or how it begins.
    pub link: String,
    pub is_prefix: bool,
}

impl Passage {
    pub fn covers(&self, link: &str) -> bool {
        if self.is_prefix { link.starts_with(&*self.link) } else { *link == *self.link }
    }
}

impl Nft {
    /// The base chains of every table of these families, whoever made it.
    pub fn hooked(&mut self) -> Result<Vec<Hooked>, KernelError> {
        let message = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
        let request = framed_for(NetfilterProtoFamily::Unspec, message);
        self.dump("the nftables chains", request, hooked)
    }

    /// The rules that accept packets by the link they came in by, one link a rule. Names in sets are not among them.
    pub fn passages(&mut self) -> Result<Vec<Passage>, KernelError> {
        let message = NfTablesMessage::GetRule(RuleMessage { attributes: vec![] });
        let request = framed_for(NetfilterProtoFamily::Unspec, message);
        self.dump("the nftables rules", request, passage)
    }
}

fn hooked(frame: &Frame<'_>) -> Option<Hooked> {
    let value = |wanted| one(frame.payload, HEADER, wanted);
    let hook = value(CHAIN_HOOK)?;
    Some(Hooked {
        family: Family::of(*frame.payload.first()?)?,
        table: text(value(TABLE)?),
        chain: text(value(CHAIN_NAME)?),
        kind: text(value(CHAIN_TYPE)?),
        hook: match be32(one(hook, 0, HOOK_NUMBER)?)? {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            _ => return None,
        },
        priority: be32(one(hook, 0, HOOK_PRIORITY)?)?.cast_signed(),
        accept: value(CHAIN_POLICY).and_then(be32).is_none_or(|policy| policy == ACCEPT),
    })
}

/// Looks for `meta iifname`, the comparison that follows it, and the verdict at the end. Everything else that a rule
/// may demand is left out of account.
fn passage(frame: &Frame<'_>) -> Option<Passage> {
    let (mut of_link, mut found, mut accepts) = (false, None, false);
    for (_, expression) in attributes(one(frame.payload, HEADER, RULE_EXPRESSIONS)?, 0) {
        let Some(data) = one(expression, 0, EXPRESSION_DATA) else { continue };
        match one(expression, 0, EXPRESSION_NAME).map(text).as_deref() {
            Some("meta") => of_link = one(data, 0, META_KEY).and_then(be32) == Some(META_IIFNAME),
            Some("cmp") if of_link => {
                let equal = one(data, 0, CMP_OPERATOR).and_then(be32) == Some(CMP_EQUAL);
                let name = one(data, 0, CMP_DATA).and_then(|data| one(data, 0, DATA_VALUE));
                found = name.filter(|_| equal);
                of_link = false;
            }
            Some("immediate") => {
                let verdict = one(data, 0, IMMEDIATE_DATA).and_then(|data| one(data, 0, DATA_VERDICT));
                accepts = verdict.and_then(|v| one(v, 0, VERDICT_CODE)).and_then(be32) == Some(ACCEPT);
            }
            _ => {}
        }
    }
    let name = found.filter(|_| accepts)?;
    Some(Passage {
        family: Family::of(*frame.payload.first()?)?,
        table: text(one(frame.payload, HEADER, TABLE)?),
        link: text(name),
        // A whole name is compared with the NUL behind it.
        is_prefix: !name.contains(&0),
    })
}

pub(super) fn one(bytes: &[u8], header: usize, wanted: u16) -> Option<&[u8]> {
    attributes(bytes, header).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// NFTA_CHAIN_TABLE and NFTA_RULE_TABLE.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;
const META_KEY: u16 = 2;
const META_IIFNAME: u32 = 6;
const CMP_OPERATOR: u16 = 2;
const CMP_EQUAL: u32 = 0;
const CMP_DATA: u16 = 3;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
