//! Rules as the kernel runs them: a match loads a field into a register and compares the register. Written to read
//! back as the plain `nft` syntax: `nft list` recognises these sequences and hides the presumed matches.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, ChecksumType, Cmp, DataAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, RuleAttribute, RuleMessage,
};

use super::set;
use super::survey::Family;
use super::table::{End, Field, IpVersion, MaxSegment, Part, Rule, Transport, Type, Value};
use super::verdict;

pub(super) fn message(family: Family, table: &str, chain: &str, rule: &Rule) -> io::Result<RuleMessage> {
    let mut program = Program { is_bridge: family == Family::Bridge, ..Program::default() };
    for part in &rule.parts {
        program.part(part)?;
    }
    let mut attributes = vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(program.steps.into_iter().map(ListAttribute::from).collect()),
    ];
    if let Some(text) = &rule.comment {
        let length = u8::try_from(text.len() + 1).ok().filter(|length| *length <= 128);
        let length = length.ok_or_else(|| unsuitable("the comment is longer than 127 bytes"))?;
        attributes.push(RuleAttribute::UserData([&[UDATA_COMMENT, length], text.as_bytes(), &[0]].concat()));
    }
    Ok(RuleMessage { attributes })
}

/// The steps so far, and what they have already made sure of.
#[derive(Default)]
struct Program {
    /// Frames may carry anything, so that the family of a packet is told by the frame.
    is_bridge: bool,
    steps: Vec<Expressions>,
    family: Option<u8>,
    protocol: Option<u8>,
}

impl Program {
    fn part(&mut self, part: &Part) -> io::Result<()> {
        match part {
            Part::Is(field, value) => self.compare(*field, value, Operator::Equal)?,
            Part::IsNot(field, value) => self.compare(*field, value, Operator::NotEqual)?,
            Part::In(fields, set) => self.look_up(fields, set, vec![]),
            Part::NotIn(fields, set) => self.look_up(fields, set, vec![Lookup::Flags(LOOKUP_INVERTED)]),
            Part::Map(fields, map) => {
                self.look_up(fields, map, vec![Lookup::DestinationRegister(Register::Verdict)])
            }
            Part::Version(IpVersion::V4) => self.presume_family(NFPROTO_IPV4),
            Part::Version(IpVersion::V6) => self.presume_family(NFPROTO_IPV6),
            Part::ToHost => self.host_bound(),
            Part::Marked(half) => self.marked(*half),
            Part::Transparent => self.transparent(),
            Part::Connection(states) => self.connection(*states),
            Part::TcpSyn => self.tcp_flags(TCP_SYN, Operator::NotEqual, 0),
            Part::TcpOpens => self.tcp_flags(TCP_SYN | TCP_ACK, Operator::Equal, TCP_SYN),
            Part::ArpForm => self.arp_form(),
            Part::Counter => self.plain("counter", vec![]),
            Part::Notrack => self.plain("notrack", vec![]),
            Part::SetPort(end, transport, port) => {
                self.presume_protocol(protocol(*transport));
                self.immediate(port.to_be_bytes().to_vec(), 0);
                self.write_port(*end, *transport);
            }
            Part::SetSourcePortFromMark(transport) => {
                self.presume_protocol(protocol(*transport));
                self.meta(MetaKey::Mark, 0);
                self.write_port(End::Source, *transport);
            }
            Part::SetMark(mark) => {
                self.immediate(mark.to_ne_bytes().to_vec(), 0);
                let to = vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(register(0))];
                self.steps.push(Expressions::Meta(to));
            }
            Part::Tproxy(to) => self.tproxy(*to),
            Part::SetMaxSegment(size) => self.set_max_segment(*size),
            Part::Masquerade => self.plain("masq", vec![]),
            Part::Refuse(transport) => self.refuse(*transport),
            Part::Verdict(it) => self.steps.push(Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Verdict),
                Immediate::Data(DataAttribute::Verdict(verdict(it))),
            ])),
        }
        Ok(())
    }

    fn compare(&mut self, field: Field, value: &Value, operator: Operator) -> io::Result<()> {
        if !suits(field, value) {
            return Err(unsuitable(&format!("{value:?} is no value of {field:?}")));
        }
        self.presume(field);
        self.load(field, 0);
        if let Value::Network(network) = value {
            self.mask(&set::bytes(&Value::Address(network.mask())));
        }
        let data = set::bytes(value);
        if let (Field::Protocol, Value::Protocol(number), Operator::Equal) = (field, value, operator) {
            self.protocol = Some(*number);
        }
        self.check(operator, data);
        Ok(())
    }

    fn look_up(&mut self, fields: &[Field], set: &str, more: Vec<Lookup>) {
        for field in fields {
            self.presume(*field);
        }
        let mut at = 0;
        for field in fields {
            self.load(*field, at);
            at += set::kernel_type(kind(*field)).length.div_ceil(4);
        }
        let mut lookup = vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(register(0))];
        lookup.extend(more);
        self.steps.push(Expressions::Lookup(lookup));
    }

    /// A header may be read only where it is known to be there.
    fn presume(&mut self, field: Field) {
        match field {
            Field::Ip4(_) => self.presume_family(NFPROTO_IPV4),
            Field::Ip6(_) => self.presume_family(NFPROTO_IPV6),
            Field::Port(_, transport) => self.presume_protocol(protocol(transport)),
            Field::ArpSender | Field::ArpSenderIp4 => self.presume_family(NFPROTO_ARP),
            Field::Ip6Length => self.presume_family(NFPROTO_IPV6),
            Field::Icmp6Type | Field::NeighbourTarget | Field::NeighbourOption | Field::NeighbourMac => {
                self.presume_family(NFPROTO_IPV6);
                self.presume_protocol(libc::IPPROTO_ICMPV6 as u8);
            }
            Field::Iifname | Field::Oifname | Field::Protocol | Field::EtherSource | Field::EtherType => {}
        }
    }

    fn presume_family(&mut self, family: u8) {
        if self.family != Some(family) {
            self.family = Some(family);
            if self.is_bridge {
                self.meta(MetaKey::EtherTypeProtocol, 0);
                self.check(Operator::Equal, ether_type(family).to_be_bytes().to_vec());
            } else {
                self.meta(MetaKey::Nfproto, 0);
                self.check(Operator::Equal, vec![family]);
            }
        }
    }

    fn presume_protocol(&mut self, number: u8) {
        if self.protocol != Some(number) {
            self.protocol = Some(number);
            self.meta(MetaKey::L4Proto, 0);
            self.check(Operator::Equal, vec![number]);
        }
    }

    /// Into the registers from the one with this number on.
    fn load(&mut self, field: Field, at: u32) {
        let (base, offset) = match field {
            Field::Iifname => return self.meta(MetaKey::Iifname, at),
            Field::Oifname => return self.meta(MetaKey::Oifname, at),
            Field::Protocol => return self.meta(MetaKey::L4Proto, at),
            Field::Ip4(End::Source) => (NETWORK, 12),
            Field::Ip4(End::Destination) => (NETWORK, 16),
            Field::Ip6(End::Source) => (NETWORK, 8),
            Field::Ip6(End::Destination) => (NETWORK, 24),
            Field::Port(end, _) => (TRANSPORT, port_offset(end)),
            Field::EtherSource => (LINK, 6),
            Field::EtherType => (LINK, 12),
            Field::ArpSender => (NETWORK, 8),
            Field::ArpSenderIp4 => (NETWORK, 14),
            Field::Ip6Length => (NETWORK, 4),
            Field::Icmp6Type => (TRANSPORT, 0),
            Field::NeighbourTarget => (TRANSPORT, 8),
            Field::NeighbourOption => (TRANSPORT, 24),
            Field::NeighbourMac => (TRANSPORT, 26),
        };
        self.payload(base, offset, set::kernel_type(kind(field)).length, at);
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, at: u32) {
        self.steps.push(Expressions::Payload(vec![
            Payload::DestinationRegister(register(at)),
            Payload::Base(base),
            Payload::Offset(offset),
            Payload::Len(length),
        ]));
    }

    fn meta(&mut self, key: MetaKey, at: u32) {
        self.steps.push(Expressions::Meta(vec![Meta::DestinationRegister(register(at)), Meta::Key(key)]));
    }

    fn check(&mut self, operator: Operator, data: Vec<u8>) {
        self.steps.push(Expressions::Cmp(vec![
            Cmp::SourceRegister(register(0)),
            Cmp::Op(operator),
            Cmp::Data(DataAttribute::Value(data)),
        ]));
    }

    fn mask(&mut self, mask: &[u8]) {
        self.steps.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(register(0)),
            Bitwise::DestinationRegister(register(0)),
            Bitwise::Length(mask.len() as u32),
            Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
        ]));
    }

    fn connection(&mut self, states: u32) {
        self.plain("ct", vec![number(CT_DREG, register(0).into()), number(CT_KEY, CT_STATE)]);
        self.mask(&states.to_ne_bytes());
        self.check(Operator::NotEqual, vec![0; 4]);
    }

    fn tcp_flags(&mut self, of: u8, operator: Operator, flags: u8) {
        self.presume_protocol(protocol(Transport::Tcp));
        self.payload(TRANSPORT, 13, 1, 0);
        self.mask(&[of]);
        self.check(operator, vec![flags]);
    }

    fn refuse(&mut self, transport: Transport) {
        self.presume_protocol(protocol(transport));
        let (kind, code) = match transport {
            Transport::Tcp => (REJECT_TCP_RST, 0),
            Transport::Udp => (REJECT_ICMPX_UNREACH, REJECT_ICMPX_PORT_UNREACH),
        };
        let how = vec![number(REJECT_TYPE, kind), DefaultNla::new(REJECT_ICMP_CODE, vec![code])];
        self.plain("reject", how);
    }

    /// Ethernet, IPv4, and the lengths of their addresses.
    fn arp_form(&mut self) {
        self.presume_family(NFPROTO_ARP);
        self.payload(NETWORK, 0, 6, 0);
        self.check(Operator::Equal, vec![0, 1, 8, 0, 6, 4]);
    }

    fn host_bound(&mut self) {
        let ask = [
            number(FIB_DREG, register(0).into()),
            number(FIB_RESULT, FIB_RESULT_ADDRTYPE),
            number(FIB_FLAGS, FIB_F_DADDR),
        ];
        self.plain("fib", ask.to_vec());
        self.check(Operator::Equal, u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec());
    }

    fn marked(&mut self, [third, fourth]: [u8; 2]) {
        self.meta(MetaKey::Mark, 0);
        self.mask(&[0, 0, 0xff, 0xff]);
        self.check(Operator::Equal, vec![0, 0, third, fourth]);
    }

    fn transparent(&mut self) {
        let ask = [number(SOCKET_KEY, SOCKET_TRANSPARENT), number(SOCKET_DREG, register(0).into())];
        self.plain("socket", ask.to_vec());
        self.check(Operator::Equal, vec![1]);
    }

    fn tproxy(&mut self, to: SocketAddr) {
        let family = if to.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
        self.presume_family(family);
        self.immediate(set::bytes(&Value::Address(to.ip())), 0);
        self.immediate(to.port().to_be_bytes().to_vec(), BEHIND_ADDRESS);
        let ask = [
            number(TPROXY_FAMILY, family.into()),
            number(TPROXY_REG_ADDR, register(0).into()),
            number(TPROXY_REG_PORT, register(BEHIND_ADDRESS).into()),
        ];
        self.plain("tproxy", ask.to_vec());
    }

    /// From the first register.
    fn write_port(&mut self, end: End, transport: Transport) {
        self.steps.push(Expressions::Payload(vec![
            Payload::SourceRegister(register(0)),
            Payload::Base(TRANSPORT),
            Payload::Offset(port_offset(end)),
            Payload::Len(2),
            Payload::CsumType(ChecksumType::Inet),
            Payload::CsumOffset(if transport == Transport::Tcp { 16 } else { 6 }),
        ]));
    }

    fn set_max_segment(&mut self, size: MaxSegment) {
        match size {
            MaxSegment::Bytes(bytes) => self.immediate(bytes.to_be_bytes().to_vec(), 0),
            MaxSegment::OfRoute => {
                self.plain("rt", vec![number(RT_DREG, register(0).into()), number(RT_KEY, RT_TCPMSS)]);
                let here = u32::from(register(0));
                let swap = [(1, here), (2, here), (3, BYTEORDER_HTON), (4, 2), (5, 2)];
                self.plain("byteorder", swap.map(|(kind, value)| number(kind, value)).to_vec());
            }
        }
        let write = vec![
            DefaultNla::new(EXTHDR_TYPE, vec![TCPOPT_MAXSEG]),
            number(EXTHDR_OFFSET, 2),
            number(EXTHDR_LEN, 2),
            number(EXTHDR_OP, EXTHDR_OP_TCPOPT),
            number(EXTHDR_SREG, register(0).into()),
        ];
        self.plain("exthdr", write);
    }

    fn immediate(&mut self, data: Vec<u8>, at: u32) {
        self.steps.push(Expressions::Immediate(vec![
            Immediate::DestinationRegister(register(at)),
            Immediate::Data(DataAttribute::Value(data)),
        ]));
    }

    fn plain(&mut self, name: &str, attributes: Vec<DefaultNla>) {
        self.steps.push(Expressions::Other { expression_type: name.to_owned(), attributes });
    }
}

fn suits(field: Field, value: &Value) -> bool {
    match (kind(field), value) {
        (Type::Name, Value::Name(_) | Value::Prefix(_))
        | (Type::Port, Value::Port(_))
        | (Type::Protocol | Type::Icmp6, Value::Protocol(_))
        | (Type::Mac, Value::Mac(_))
        | (Type::EtherType, Value::EtherType(_))
        | (Type::Number, Value::Number(_)) => true,
        (Type::Ip4, Value::Address(ip)) => ip.is_ipv4(),
        (Type::Ip6, Value::Address(ip)) => ip.is_ipv6(),
        (Type::Ip4, Value::Network(network)) => network.is_ipv4(),
        (Type::Ip6, Value::Network(network)) => network.is_ipv6(),
        _ => false,
    }
}

fn kind(field: Field) -> Type {
    match field {
        Field::Iifname | Field::Oifname => Type::Name,
        Field::Protocol => Type::Protocol,
        Field::Ip4(_) | Field::ArpSenderIp4 => Type::Ip4,
        Field::Ip6(_) | Field::NeighbourTarget => Type::Ip6,
        Field::Port(..) => Type::Port,
        Field::EtherSource | Field::ArpSender | Field::NeighbourMac => Type::Mac,
        Field::EtherType => Type::EtherType,
        Field::Icmp6Type => Type::Icmp6,
        Field::Ip6Length | Field::NeighbourOption => Type::Number,
    }
}

fn port_offset(end: End) -> u32 {
    match end {
        End::Source => 0,
        End::Destination => 2,
    }
}

fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => libc::IPPROTO_TCP as u8,
        Transport::Udp => libc::IPPROTO_UDP as u8,
    }
}

/// The registers of four bytes, of which joined keys take several in a row.
fn register(at: u32) -> Register {
    Register::from(u32::from(Register::Reg32_00) + at)
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn unsuitable(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what.to_owned())
}

fn ether_type(family: u8) -> u16 {
    match family {
        NFPROTO_IPV4 => libc::ETH_P_IP as u16,
        NFPROTO_IPV6 => libc::ETH_P_IPV6 as u16,
        _ => libc::ETH_P_ARP as u16,
    }
}

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_ARP: u8 = 3;
const NFPROTO_IPV6: u8 = 10;
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const TCP_SYN: u8 = 2;
const TCP_ACK: u8 = 16;
const TCPOPT_MAXSEG: u8 = 2;
const LOOKUP_INVERTED: u32 = 1;
const UDATA_COMMENT: u8 = 0;
/// The register of four bytes after an IPv6 address.
const BEHIND_ADDRESS: u32 = 4;
const FIB_DREG: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_F_DADDR: u32 = 2;
const SOCKET_KEY: u16 = 1;
const SOCKET_DREG: u16 = 2;
const SOCKET_TRANSPARENT: u32 = 0;
const TPROXY_FAMILY: u16 = 1;
const TPROXY_REG_ADDR: u16 = 2;
const TPROXY_REG_PORT: u16 = 3;
const CT_DREG: u16 = 1;
const CT_KEY: u16 = 2;
const CT_STATE: u32 = 0;
const REJECT_TYPE: u16 = 1;
const REJECT_ICMP_CODE: u16 = 2;
const REJECT_TCP_RST: u32 = 1;
const REJECT_ICMPX_UNREACH: u32 = 2;
const REJECT_ICMPX_PORT_UNREACH: u8 = 1;
const RT_DREG: u16 = 1;
const RT_KEY: u16 = 2;
const RT_TCPMSS: u32 = 3;
const BYTEORDER_HTON: u32 = 1;
const EXTHDR_TYPE: u16 = 2;
const EXTHDR_OFFSET: u16 = 3;
const EXTHDR_LEN: u16 = 4;
const EXTHDR_OP: u16 = 6;
const EXTHDR_SREG: u16 = 7;
const EXTHDR_OP_TCPOPT: u32 = 1;
