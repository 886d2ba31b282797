//! Policy rules: which routing table a packet's way is looked up in. Only what is told by a mark.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Op;

/// Packets with this mark take their way from `table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub is_ipv4: bool,
    /// Rules with lower numbers are asked first.
    pub priority: u32,
    pub mark: u32,
    /// Of packets that came in by this link only; `lo` means those that the host sends itself, and the kernel's question
    /// whether it would send to where a packet claims to come from.
    pub from_link: Option<&'static str>,
    pub table: u32,
}

/// `EEXIST` when the same rule is there.
pub fn add(rule: &Rule) -> Op<'static> {
    let message = RouteNetlinkMessage::NewRule(message(rule));
    Op::new("add the policy rule", name(rule), NLM_F_CREATE | NLM_F_EXCL, message)
}

/// `ENOENT` when it is not there.
pub fn delete(rule: &Rule) -> Op<'static> {
    Op::new("remove the policy rule", name(rule), 0, RouteNetlinkMessage::DelRule(message(rule)))
}

fn name(rule: &Rule) -> String {
    let family = if rule.is_ipv4 { 4 } else { 6 };
    format!("{} of IPv{family} (mark {:#x}, table {})", rule.priority, rule.mark, rule.table)
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: if rule.is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 },
        action: RuleAction::ToTable,
        // A larger number goes into an attribute, which goes before.
        table: u8::try_from(rule.table).unwrap_or_default(),
        ..RuleHeader::default()
    };
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(rule.table),
    ];
    message.attributes.extend(rule.from_link.map(|link| RuleAttribute::Iifname(link.to_owned())));
    message
}
