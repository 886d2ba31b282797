//! Rates: a token bucket on a link's way out, and an intermediate device through which what comes in by a link is led,
//! so that it has a way out to put a bucket on. Classifier u32 and action mirred, because every kernel that shapes has
//! them. The kernel's structures are written here byte by byte: the message crates do not know these kinds.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::LinkIfb;

use super::Op;

/// Bytes a second, and bytes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub rate: u64,
    pub burst: u32,
}

/// The bucket in place of whatever shaped the link's way out before. What would have to wait longer than 25 ms goes lost.
pub fn bucket(link: u32, spec: Bucket) -> Op<'static> {
    let short = u32::try_from(spec.rate).unwrap_or(u32::MAX);
    let waiting = spec.rate.saturating_mul(LATENCY_MS) / 1000;
    let limit = u32::try_from(waiting.saturating_add(u64::from(spec.burst))).unwrap_or(u32::MAX);
    let mut params = rate_spec(short);
    params.extend([0; RATE_SPEC]); // no peak rate
    for word in [limit, 0, 0] {
        params.extend(word.to_ne_bytes());
    }
    let mut options = attribute(TCA_TBF_PARMS, &params);
    options.extend(attribute(TCA_TBF_BURST, &spec.burst.to_ne_bytes()));
    if u64::from(short) < spec.rate {
        options.extend(attribute(TCA_TBF_RATE64, &spec.rate.to_ne_bytes()));
    }
    let message = message(link, TcHandle::UNSPEC, TcHandle::ROOT, "tbf", options);
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    Op::new("limit the rate of link", link, flags, RouteNetlinkMessage::NewQueueDiscipline(message))
}

/// A device that sends on what is led into it, as if it had never been away.
pub fn intermediate(name: &str, group: u32) -> Op<'static> {
    let message = LinkIfb::new(name).link_group(group).build();
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    Op::new("create the shaping device", name, flags, RouteNetlinkMessage::NewLink(message))
}

/// Where what comes in by the link can be classified. Made once a link.
pub fn ingress(link: u32) -> Op<'static> {
    let message = message(link, INGRESS, TcHandle::INGRESS, "ingress", Vec::new());
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    Op::new("classify what comes in by link", link, flags, RouteNetlinkMessage::NewQueueDiscipline(message))
}

/// Takes that away, with what it leads elsewhere.
pub fn no_ingress(link: u32) -> Op<'static> {
    let message = message(link, INGRESS, TcHandle::INGRESS, "ingress", Vec::new());
    Op::new(
        "stop classifying what comes in by link",
        link,
        0,
        RouteNetlinkMessage::DelQueueDiscipline(message),
    )
}

/// Leads all that comes in by the link through the intermediate device `to`.
pub fn redirect(link: u32, to: u32) -> Op<'static> {
    let mut mirred = Vec::new();
    for word in [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to] {
        mirred.extend(word.to_ne_bytes());
    }
    let action = [
        attribute(TCA_ACT_KIND, b"mirred\0"),
        attribute(TCA_ACT_OPTIONS, &attribute(TCA_MIRRED_PARMS, &mirred)),
    ];
    let options = [
        attribute(TCA_U32_SEL, &everything()),
        attribute(TCA_U32_ACT, &attribute(FIRST_ACTION, &action.concat())),
    ];
    let mut message = message(link, TcHandle::UNSPEC, INGRESS, "u32", options.concat());
    message.header.info = PRIORITY << 16 | u32::from(ETH_P_ALL.to_be());
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    Op::new("redirect what comes in by link", link, flags, RouteNetlinkMessage::NewTrafficFilter(message))
}

fn message(link: u32, handle: TcHandle, parent: TcHandle, kind: &str, options: Vec<u8>) -> TcMessage {
    let mut message = TcMessage::with_index(link.cast_signed());
    (message.header.handle, message.header.parent) = (handle, parent);
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    if !options.is_empty() {
        message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)));
    }
    message
}

/// `struct tc_ratespec`. With a link layer named, the kernel counts by itself and wants no table of ours.
fn rate_spec(rate: u32) -> Vec<u8> {
    let mut spec = vec![0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    spec.extend(rate.to_ne_bytes());
    spec
}

/// `struct tc_u32_sel` with one key: no bit of the packet is asked for.
fn everything() -> Vec<u8> {
    let mut selector = vec![TC_U32_TERMINAL, 0, 1];
    selector.resize(SELECTOR + SELECTOR_KEY, 0);
    selector
}

/// Attributes begin at multiples of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE + value.len()).expect("all that is written here is short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const LATENCY_MS: u64 = 25;
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0 };
const PRIORITY: u32 = 1;
const ETH_P_ALL: u16 = 3;
const ATTRIBUTE: usize = 4;
const RATE_SPEC: usize = 12;
const SELECTOR: usize = 16;
const SELECTOR_KEY: usize = 16;
const LINKLAYER_ETHERNET: u8 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const FIRST_ACTION: u16 = 1;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;
const TC_U32_TERMINAL: u8 = 1;
