//! The program that steers ports, in force, and the ports it looks at.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use super::call;
use super::object::{Aligned, Object};
use super::{Steered, Transport};
use crate::error::{Doing as _, KernelError};
use crate::socket;

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/steer.bpf.o")));

/// What the program does with a port, as it has it.
const STEERED: u32 = 1;
const REFUSED: u32 = 2;

const PROGRAM: &str = "steer";
const PORTS: &str = "ports";
const SOCKETS: &str = "sockets";

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
        let mut object = load()?;
        let (program, ports, slots) = (object.program(PROGRAM)?, object.map(PORTS)?, object.map(SOCKETS)?);
        for (transport, socket) in sockets {
            let address = socket::local_address(socket).doing("read the address of", "a socket")?;
            let slot = match transport {
                Transport::Tcp => 0_u32,
                Transport::Udp => 2,
            } + u32::from(address.is_ipv6());
            call::put(slots.as_fd(), &slot, &socket.as_raw_fd()).doing("steer ports to", address)?;
        }
        let netns = File::open("/proc/thread-self/ns/net").doing("open", "the network namespace")?;
        let link = call::link(program.as_fd(), call::SK_LOOKUP, netns.as_fd())
            .doing("attach the BPF program", PROGRAM)?;
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

fn load() -> Result<Object, KernelError> {
    Object::load(&OBJECT.0, &[(PROGRAM, call::SK_LOOKUP)])
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
