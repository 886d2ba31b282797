//! Sets and their elements in the kernel's form. A set of networks holds, for each, its first address and, marked as an
//! end, the address after its last; a set of joined keys holds first and last key of each in one element instead.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, SetAttribute, SetDescription, SetElementAttribute, SetElementFlags,
    SetElementList, SetElementMessage, SetFlags, SetMessage,
};

use super::table::{Element, Set, Type, Value};
use super::verdict;

pub(super) fn message(table: &str, set: &Set, id: u32) -> SetMessage {
    let joined = set.key.len() > 1;
    let mut flags = SetFlags::empty();
    flags.set(SetFlags::Interval, set.intervals);
    flags.set(SetFlags::Map, set.map);
    flags.set(SetFlags::Concat, joined);
    let number = set.key.iter().fold(0, |all, part| all << TYPE_BITS | kernel_type(*part).number);
    let length = match set.key.as_slice() {
        [only] => kernel_type(*only).length,
        parts => parts.iter().map(|part| kernel_type(*part).length.next_multiple_of(4)).sum(),
    };
    let mut attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(set.name.clone()),
        SetAttribute::Id(id),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(number),
        SetAttribute::KeyLen(length),
    ];
    if let [only] = set.key.as_slice() {
        // Only for `nft list`, which else would print a number in the wrong order.
        let order = [vec![UDATA_KEY_BYTEORDER, 4], kernel_type(*only).order.to_ne_bytes().to_vec()].concat();
        attributes.push(SetAttribute::UserData(order));
    }
    if joined {
        let fields = set.key.iter().map(|part| field_length(kernel_type(*part).length)).collect();
        attributes.push(SetAttribute::Description(vec![SetDescription::Concat(fields)]));
    }
    if set.map {
        attributes.push(SetAttribute::DataType(VERDICTS));
    }
    SetMessage { attributes }
}

/// Elements in as many messages as the 64 KiB of an attribute make necessary.
pub(super) fn elements(
    table: &str,
    set: &str,
    elements: &[Element],
) -> impl Iterator<Item = SetElementMessage> {
    elements.chunks(PER_MESSAGE).map(move |some| SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(set.to_owned()),
            SetElementList::Elements(some.iter().flat_map(element).map(ListAttribute::Element).collect()),
        ],
    })
}

/// One attribute list for each entry the kernel keeps: two for a network in a set of plain keys.
fn element(element: &Element) -> Vec<Vec<SetElementAttribute>> {
    let data =
        element.verdict.as_ref().map(|it| SetElementAttribute::Data(DataAttribute::Verdict(verdict(it))));
    let mut entry = Vec::with_capacity(3);
    if let [only] = element.key.as_slice() {
        entry.push(SetElementAttribute::Key(DataAttribute::Value(bytes(only))));
        entry.extend(data);
        let mut entries = vec![entry];
        if let Value::Network(_) = only {
            // A network up to the very last address has no end.
            entries.extend(after(last(only)).map(|end| {
                let flag = SetElementAttribute::Flags(SetElementFlags::IntervalEnd);
                vec![SetElementAttribute::Key(DataAttribute::Value(end)), flag]
            }));
        }
        return entries;
    }
    entry.push(SetElementAttribute::Key(DataAttribute::Value(joined(&element.key, bytes))));
    if element.key.iter().any(|part| matches!(part, Value::Network(_))) {
        let end = nested(DATA_VALUE, &joined(&element.key, last));
        entry.push(SetElementAttribute::KeyEnd(vec![end]));
    }
    entry.extend(data);
    vec![entry]
}

/// The value as it lies in a register, or the first of a network.
pub(super) fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Name(name) => {
            let mut padded = vec![0; NAME];
            for (to, from) in padded.iter_mut().zip(name.bytes()) {
                *to = from;
            }
            padded
        }
        Value::Prefix(start) => start.as_bytes().to_vec(),
        Value::Address(ip) => octets(*ip),
        Value::Network(network) => octets(network.network()),
        Value::Port(number) | Value::EtherType(number) | Value::Number(number) => {
            number.to_be_bytes().to_vec()
        }
        Value::Protocol(number) => vec![*number],
        Value::Mac(mac) => mac.to_vec(),
    }
}

fn last(value: &Value) -> Vec<u8> {
    match value {
        Value::Network(network) => octets(network.broadcast()),
        other => bytes(other),
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Each part fills whole registers of four bytes.
fn joined(key: &[Value], part: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut all = Vec::new();
    for value in key {
        all.extend(part(value));
        all.resize(all.len().next_multiple_of(4), 0);
    }
    all
}

/// The number after, as the bytes spell it; none after the last.
fn after(mut number: Vec<u8>) -> Option<Vec<u8>> {
    for byte in number.iter_mut().rev() {
        let (next, carried) = byte.overflowing_add(1);
        *byte = next;
        if !carried {
            return Some(number);
        }
    }
    None
}

fn field_length(length: u32) -> DefaultNla {
    let inner = nested(FIELD_LENGTH, &length.to_be_bytes());
    let mut value = vec![0; inner.buffer_len()];
    inner.emit(&mut value);
    DefaultNla::new(LIST_ELEMENT | NLA_F_NESTED, value)
}

fn nested(kind: u16, value: &[u8]) -> DefaultNla {
    DefaultNla::new(kind, value.to_vec())
}

/// A type as `nft` numbers it (the kernel only stores that), its bytes, and their order.
pub(super) struct KernelType {
    pub(super) number: u32,
    pub(super) length: u32,
    pub(super) order: u32,
}

pub(super) fn kernel_type(kind: Type) -> KernelType {
    let (number, length, order) = match kind {
        Type::Ip4 => (7, 4, BIG_ENDIAN),
        Type::Ip6 => (8, 16, BIG_ENDIAN),
        Type::Protocol => (12, 1, BIG_ENDIAN),
        Type::Port => (13, 2, BIG_ENDIAN),
        Type::Mac => (9, 6, BIG_ENDIAN),
        Type::EtherType => (10, 2, BIG_ENDIAN),
        Type::Icmp6 => (29, 1, BIG_ENDIAN),
        Type::Number => (4, 2, BIG_ENDIAN),
        Type::Name => (41, NAME as u32, HOST_ENDIAN),
    };
    KernelType { number, length, order }
}

/// An element takes about 100 bytes, two where it is a network.
const PER_MESSAGE: usize = 250;

const NAME: usize = 16;
const TYPE_BITS: u32 = 6;
const HOST_ENDIAN: u32 = 1;
const BIG_ENDIAN: u32 = 2;
const UDATA_KEY_BYTEORDER: u8 = 0;
const VERDICTS: u32 = 0xffff_ff00;
const LIST_ELEMENT: u16 = 1;
const FIELD_LENGTH: u16 = 1;
const DATA_VALUE: u16 = 1;
