//! The programs in the kernel, and their maps.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::layout::{self, BackendValue, Flow, Member, Place, Seat, ServiceValue, Told};
use super::{Entry, Gone, Vip};
use crate::bpf::Transport;
use crate::bpf::call::{self, Kind};
use crate::bpf::object::{Aligned, Object};
use crate::error::{Doing as _, KernelError};
use crate::netlink::diag::{Connected, SockDiag};
use crate::netns::Netns;

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/eastwest.bpf.o")));

const fn on_cgroup(attach: u32) -> Kind {
    Kind { program: 18, attach }
}

/// Those that give names back come first: while they are attached one after the other, no socket is led anywhere that
/// could not be told its partner's name.
const PROGRAMS: [(&str, Kind); 9] = [
    ("release", Kind { program: 9, attach: 34 }),
    ("getpeername4", on_cgroup(29)),
    ("getpeername6", on_cgroup(30)),
    ("recvmsg4", on_cgroup(19)),
    ("recvmsg6", on_cgroup(20)),
    ("connect4", on_cgroup(10)),
    ("connect6", on_cgroup(11)),
    ("sendmsg4", on_cgroup(14)),
    ("sendmsg6", on_cgroup(15)),
];

const MAPS: [&str; 7] = ["members", "services", "backends", "live", "connected", "flows", "memories"];
const MEMBERS: usize = 0;
const SERVICES: usize = 1;
const BACKENDS: usize = 2;
const LIVE: usize = 3;
const CONNECTED: usize = 4;
const FLOWS: usize = 5;
const MEMORIES: usize = 6;

/// The programs hold the other map, which is theirs alone.
#[derive(Debug)]
pub(super) struct Loaded {
    maps: Vec<OwnedFd>,
    links: Vec<OwnedFd>,
}

impl Loaded {
    pub(super) fn attach(cgroup: BorrowedFd<'_>) -> Result<Self, KernelError> {
        let mut object = Object::load(&OBJECT.0, &PROGRAMS)?;
        let maps = MAPS.iter().map(|name| object.map(name)).collect::<Result<_, _>>()?;
        let mut links = Vec::with_capacity(PROGRAMS.len());
        for (name, kind) in PROGRAMS {
            let program = object.program(name)?;
            let link = call::link(program.as_fd(), kind, cgroup);
            links.push(link.doing("attach to the cgroup the BPF program", name)?);
        }
        Ok(Self { maps, links })
    }

    pub(super) fn adopt(mut descriptors: Vec<OwnedFd>) -> Result<Self, KernelError> {
        if descriptors.len() != MAPS.len() + PROGRAMS.len() {
            let cause =
                io::Error::new(io::ErrorKind::InvalidData, format!("{} descriptors", descriptors.len()));
            return Err(KernelError::new("take over the BPF program", "eastwest", cause));
        }
        let links = descriptors.split_off(MAPS.len());
        Ok(Self { maps: descriptors, links })
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.maps.iter().chain(&self.links).map(|fd| fd.as_fd())
    }

    pub(super) fn put(&self, entry: Entry) -> Result<(), KernelError> {
        match entry {
            Entry::Member { namespace, network } => {
                call::put(self.map(MEMBERS), &Member { namespace, network, zero: 0 }, &1_u32)
            }
            Entry::Service(vip, service) => {
                call::put(self.map(SERVICES), &Place::from(vip), &ServiceValue::new(vip, service))
            }
            Entry::Seat { slot, number, backend } => {
                let seat = Seat { slot, number, zero: 0 };
                call::put(self.map(BACKENDS), &seat, &BackendValue::new(slot, backend))
            }
            Entry::Live { slot, backend } => {
                call::put(self.map(LIVE), &BackendValue::new(slot, backend), &1_u32)
            }
        }
        .doing("note for the BPF programs", entry)
    }

    pub(super) fn remove(&self, entry: Entry) -> Result<(), KernelError> {
        let removed = match entry {
            Entry::Member { namespace, network } => {
                call::remove(self.map(MEMBERS), &Member { namespace, network, zero: 0 })
            }
            Entry::Service(vip, _) => call::remove(self.map(SERVICES), &Place::from(vip)),
            Entry::Seat { slot, number, .. } => {
                call::remove(self.map(BACKENDS), &Seat { slot, number, zero: 0 })
            }
            Entry::Live { slot, backend } => call::remove(self.map(LIVE), &BackendValue::new(slot, backend)),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).doing("take from the BPF programs", entry)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn entries(&self) -> Result<Vec<Entry>, KernelError> {
        let mut entries = Vec::new();
        let members = self.keys::<Member>(MEMBERS)?.into_iter();
        entries.extend(
            members.map(|member| Entry::Member { namespace: member.namespace, network: member.network }),
        );
        for place in self.keys::<Place>(SERVICES)? {
            let value: ServiceValue = self.get(SERVICES, &place)?;
            let vip: Vip = place.vip();
            entries.push(Entry::Service(vip, value.service()));
        }
        for seat in self.keys::<Seat>(BACKENDS)? {
            let value: BackendValue = self.get(BACKENDS, &seat)?;
            entries.push(Entry::Seat { slot: seat.slot, number: seat.number, backend: value.backend() });
        }
        let live = self.keys::<BackendValue>(LIVE)?.into_iter();
        entries.extend(live.map(|value| Entry::Live { slot: value.slot, backend: value.backend() }));
        Ok(entries)
    }

    pub(super) fn connections(&self) -> Result<Connections, KernelError> {
        let duplicate = |map: usize| self.maps[map].try_clone().doing("duplicate the BPF map", MAPS[map]);
        let (flows, memories) = (duplicate(FLOWS)?, duplicate(MEMORIES)?);
        Ok(Connections { namespaces: duplicate(CONNECTED)?, flows, memories })
    }

    fn keys<K: Copy + Default>(&self, map: usize) -> Result<Vec<K>, KernelError> {
        let mut keys: Vec<K> = Vec::new();
        while let Some(key) =
            call::next_key(self.map(map), keys.last()).doing("read the BPF map", MAPS[map])?
        {
            keys.push(key);
        }
        Ok(keys)
    }

    fn get<K: Copy, V: Copy + Default>(&self, map: usize, key: &K) -> Result<V, KernelError> {
        call::get(self.map(map), key).doing("read the BPF map", MAPS[map])
    }

    fn map(&self, map: usize) -> BorrowedFd<'_> {
        self.maps[map].as_fd()
    }
}

/// What sockets have been told, from any thread.
#[derive(Debug)]
pub(super) struct Connections {
    namespaces: OwnedFd,
    flows: OwnedFd,
    memories: OwnedFd,
}

impl Connections {
    pub(super) fn has(&self, namespace: u64, backend: IpAddr) -> Result<bool, KernelError> {
        match call::get::<_, u32>(self.namespaces.as_fd(), &Told::new(namespace, backend)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).doing("read the BPF map", MAPS[CONNECTED]),
        }
    }

    pub(super) fn end(&self, netns: &Netns, gone: &[Gone]) -> Result<usize, KernelError> {
        let mut diag = SockDiag::open_in(netns)?;
        let mut ended = 0;
        for transport in [Transport::Tcp, Transport::Udp] {
            let gone: Vec<&Gone> = gone.iter().filter(|gone| gone.transport == transport).collect();
            if gone.is_empty() {
                continue;
            }
            for socket in diag.connected(transport, self.memories.as_fd())? {
                let is_with = |gone: &&&Gone| gone.backend == socket.partner;
                for gone in gone.iter().filter(is_with) {
                    if self.is_led(&socket, gone)? && diag.destroy(&socket)? {
                        ended += 1;
                        break;
                    }
                }
            }
        }
        Ok(ended)
    }

    /// And not connected to the backend by its own address.
    fn is_led(&self, socket: &Connected, gone: &Gone) -> Result<bool, KernelError> {
        match gone.transport {
            Transport::Tcp => Ok(layout::pairs(&socket.stored).contains(&(gone.vip, gone.backend))),
            Transport::Udp => match call::get::<_, Flow>(self.flows.as_fd(), &socket.number) {
                Ok(flow) => Ok(flow == Flow::new(gone.vip, gone.backend)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error).doing("read the BPF map", MAPS[FLOWS]),
            },
        }
    }
}

/// Loads them for nobody.
pub(super) fn probe() -> Result<(), KernelError> {
    Object::load(&OBJECT.0, &PROGRAMS).map(|_| ())
}

pub(super) fn build() -> u64 {
    let mut hasher = DefaultHasher::new();
    OBJECT.0.hash(&mut hasher);
    hasher.finish()
}
