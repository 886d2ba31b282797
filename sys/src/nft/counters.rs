//! What counters of a table's rules have counted, by the rules' comments.

use std::collections::BTreeMap;

use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleAttribute, RuleMessage};

use super::survey::{EXPRESSION_DATA, EXPRESSION_NAME, RULE_EXPRESSIONS, one};
use super::table::Named;
use super::{HEADER, Nft, framed_for};
use crate::error::KernelError;
use crate::netlink::attr::{attributes, text};
use crate::netlink::channel::Frame;

impl Nft {
    /// Packets by comment, of all rules of the table that count and say for what. A table that is not there counts
    /// nothing.
    pub fn counters<'a>(
        &mut self,
        table: impl Into<Named<'a>>,
    ) -> Result<BTreeMap<String, u64>, KernelError> {
        let Named { family, name } = table.into();
        let message =
            NfTablesMessage::GetRule(RuleMessage { attributes: vec![RuleAttribute::Table(name.to_owned())] });
        let mut counted = BTreeMap::new();
        for (comment, packets) in
            self.dump("the nftables counters", framed_for(family.number(), message), counter)?
        {
            *counted.entry(comment).or_default() += packets;
        }
        Ok(counted)
    }
}

fn counter(frame: &Frame<'_>) -> Option<(String, u64)> {
    let expressions = one(frame.payload, HEADER, RULE_EXPRESSIONS)?;
    let packets = attributes(expressions, 0).find_map(|(_, expression)| {
        let name = one(expression, 0, EXPRESSION_NAME).map(text)?;
        let data = one(expression, 0, EXPRESSION_DATA).filter(|_| name == "counter")?;
        one(data, 0, COUNTER_PACKETS)?.try_into().ok().map(u64::from_be_bytes)
    })?;
    Some((comment(one(frame.payload, HEADER, RULE_USERDATA)?)?, packets))
}

/// The notes of `nft` on a rule: kind, length, value, one after the other.
fn comment(mut notes: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = notes {
        let value = rest.get(..usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(text(value));
        }
        notes = &rest[value.len()..];
    }
    None
}

const UDATA_COMMENT: u8 = 0;
const RULE_USERDATA: u16 = 7;
const COUNTER_PACKETS: u16 = 2;
