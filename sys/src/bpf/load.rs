//! From the object file to a program in force, and the ports it looks at.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya_obj::Object;

use super::call::{self, NewMap};
use super::{Steered, Transport};
use crate::error::{Doing as _, KernelError};
use crate::socket;

/// The reader of object files reads it in place, word by word.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/steer.bpf.o")));

/// What the program does with a port, as it has it.
const STEERED: u32 = 1;
const REFUSED: u32 = 2;

const PROGRAM: &str = "steer";
const PORTS: &str = "ports";
const SOCKETS: &str = "sockets";

const LOAD: &str = "load the BPF program";

/// A key of the map of ports, as the program has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    address: [u8; 16],
    port: u16,
    protocol: u8,
    family: u8,
}

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) link: OwnedFd,
    ports: OwnedFd,
}

impl Loaded {
    pub(super) fn attach(sockets: &[(Transport, BorrowedFd<'_>)]) -> Result<Self, KernelError> {
        let Program { program, mut maps } = load()?;
        let mut take = |name| maps.remove(name).ok_or_else(|| malformed(format!("it has no map {name}")));
        let (ports, slots) = (take(PORTS)?, take(SOCKETS)?);
        for (transport, socket) in sockets {
            let address = socket::local_address(socket).doing("read the address of", "a socket")?;
            let slot = match transport {
                Transport::Tcp => 0_u32,
                Transport::Udp => 2,
            } + u32::from(address.is_ipv6());
            call::put(slots.as_fd(), &slot, &socket.as_raw_fd()).doing("steer ports to", address)?;
        }
        let netns = File::open("/proc/thread-self/ns/net").doing("open", "the network namespace")?;
        let link = call::link(program.as_fd(), netns.as_fd()).doing("attach the BPF program", PROGRAM)?;
        Ok(Self { link, ports })
    }

    pub(super) fn put(&self, port: Steered) -> Result<(), KernelError> {
        call::put(self.ports.as_fd(), &Key::from(port), &STEERED).doing("steer", port)
    }

    pub(super) fn refuse(&self, port: Steered) -> Result<(), KernelError> {
        call::put(self.ports.as_fd(), &Key::from(port), &REFUSED).doing("refuse connections to", port)
    }

    pub(super) fn remove(&self, port: Steered) -> Result<(), KernelError> {
        match call::remove(self.ports.as_fd(), &Key::from(port)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).doing("stop steering", port),
            _ => Ok(()),
        }
    }
}

/// Loads it for nobody.
pub(super) fn probe() -> Result<(), KernelError> {
    load().map(|_| ())
}

struct Program {
    program: OwnedFd,
    maps: HashMap<String, OwnedFd>,
}

fn load() -> Result<Program, KernelError> {
    let mut object = Object::parse(&OBJECT.0).map_err(|error| malformed(error.to_string()))?;
    let mut maps = HashMap::new();
    for (name, map) in &object.maps {
        let mut new = NewMap {
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
            ..NewMap::default()
        };
        // The last byte stays the end of the text.
        for (to, from) in new.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        maps.insert(name.clone(), call::create_map(&new).doing("make the BPF map", name)?);
    }
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let known = object.maps.clone();
    let known = known.iter().filter_map(|(name, map)| Some((&**name, maps.get(name)?.as_raw_fd(), map)));
    object.relocate_maps(known, &sections).map_err(|error| malformed(error.to_string()))?;
    object.relocate_calls(&sections).map_err(|error| malformed(error.to_string()))?;
    let program = object.programs.get(PROGRAM);
    let code = program.and_then(|program| object.functions.get(&program.function_key()));
    let code = code.ok_or_else(|| malformed("the program is missing"))?;
    let program = call::load_program(&code.instructions, &object.license).doing(LOAD, PROGRAM)?;
    Ok(Program { program, maps })
}

fn malformed(cause: impl Into<String>) -> KernelError {
    KernelError::new(LOAD, PROGRAM, io::Error::new(io::ErrorKind::InvalidData, cause.into()))
}

impl From<Steered> for Key {
    fn from(steered: Steered) -> Self {
        let mut address = [0; 16];
        let family = match steered.address {
            IpAddr::V4(v4) => {
                address[..4].copy_from_slice(&v4.octets());
                libc::AF_INET
            }
            IpAddr::V6(v6) => {
                address = v6.octets();
                libc::AF_INET6
            }
        };
        let protocol = match steered.transport {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
        };
        // Both are small numbers.
        Self { address, port: steered.port, protocol: protocol as u8, family: family as u8 }
    }
}
