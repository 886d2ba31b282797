//! Who holds a host port: a runtime's reservation, which steering passes by, or a program that serves. Asks the kernel
//! by binding, and only where that clashes looks for the socket's owner in /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netd_sys::{KernelError, socket};

use super::bind::is_clash;
use super::funnel::transport;
use crate::model::Protocol;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub pid: u32,
    /// As the kernel calls it: at most 15 characters.
    pub program: String,
}

/// A port that somebody serves, or may: nobody known holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub at: SocketAddr,
    /// Who, as far as it can be found.
    pub by: Vec<Holder>,
}

/// Those of the places that are neither free nor held by `reservations` alone.
pub(super) fn taken(
    protocol: Protocol,
    places: impl Iterator<Item = SocketAddr>,
    reservations: &[String],
) -> Result<Vec<Taken>, KernelError> {
    let mut clashes = Vec::new();
    for place in places {
        match socket::probe(place, transport(protocol)) {
            Ok(()) => {}
            Err(error) if is_clash(&error) => clashes.push(place),
            Err(error) => return Err(error),
        }
    }
    if clashes.is_empty() {
        return Ok(Vec::new());
    }
    let holders = holders(protocol, &clashes);
    let taken = clashes.into_iter().zip(holders).map(|(at, by)| Taken { at, by });
    let serves = |holder: &Holder| !reservations.contains(&holder.program);
    Ok(taken.filter(|taken| taken.by.is_empty() || taken.by.iter().any(serves)).collect())
}

/// For each place the processes that have a socket there. None where they cannot be found.
pub(crate) fn holders(protocol: Protocol, places: &[SocketAddr]) -> Vec<Vec<Holder>> {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let (v4, v6) = match protocol {
        Protocol::Tcp => (read("tcp"), read("tcp6")),
        Protocol::Udp => (read("udp"), read("udp6")),
    };
    let ports: BTreeSet<u16> = places.iter().map(SocketAddr::port).collect();
    let rows: Vec<Row> =
        v4.lines().chain(v6.lines()).filter_map(row).filter(|row| ports.contains(&row.at.port())).collect();
    let sockets: Vec<BTreeSet<u64>> =
        places.iter().map(|place| in_the_way(*place, protocol, &rows)).collect();
    let owners = owners(&sockets.iter().flatten().copied().collect());
    let of = |inodes: BTreeSet<u64>| {
        let holders: BTreeSet<Holder> =
            inodes.iter().filter_map(|inode| owners.get(inode)).flatten().cloned().collect();
        holders.into_iter().collect()
    };
    sockets.into_iter().map(of).collect()
}

/// A line of /proc/net/tcp and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    at: SocketAddr,
    state: u8,
    inode: u64,
}

const LISTEN: u8 = 10;
const TIME_WAIT: u8 = 6;

fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
    Some(Row { at: SocketAddr::new(parse(address)?, port), state, inode: fields.get(9)?.parse().ok()? })
}

/// Words of four bytes, each as the machine writes a number.
fn parse(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (at, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// The sockets that keep a new one from this place. A listening one where there is any: those of its connections are
/// not in the way. One of the other family only if there is none of this: a socket on [::] may hold IPv4 too.
fn in_the_way(place: SocketAddr, protocol: Protocol, rows: &[Row]) -> BTreeSet<u64> {
    let meets = |row: &&Row| {
        let (one, other) = (place.ip(), row.at.ip());
        let same = one == other || one.is_unspecified() || other.is_unspecified();
        row.at.port() == place.port() && row.inode != 0 && row.state != TIME_WAIT && same
    };
    let mut found: Vec<&Row> = rows.iter().filter(meets).collect();
    if found.iter().any(|row| row.at.is_ipv4() == place.is_ipv4()) {
        found.retain(|row| row.at.is_ipv4() == place.is_ipv4());
    }
    if protocol == Protocol::Tcp && found.iter().any(|row| row.state == LISTEN) {
        found.retain(|row| row.state == LISTEN);
    }
    found.into_iter().map(|row| row.inode).collect()
}

/// The processes that have these sockets open.
fn owners(wanted: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Holder>> {
    let mut owners: BTreeMap<u64, Vec<Holder>> = BTreeMap::new();
    if wanted.is_empty() {
        return owners;
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in numbers {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let sockets = descriptors.filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
        });
        let held: BTreeSet<u64> = sockets.filter(|inode| wanted.contains(inode)).collect();
        if held.is_empty() {
            continue;
        }
        // A process that has just ended holds nothing.
        let Ok(program) = fs::read_to_string(format!("/proc/{pid}/comm")) else { continue };
        let holder = Holder { pid, program: program.trim_end().to_owned() };
        for inode in held {
            owners.entry(inode).or_default().push(holder.clone());
        }
    }
    owners
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 20 4 30 10 -1
   2: 0100007F:1F91 0100007F:D432 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   3: 00000000000000000000000000000000:1F92 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 333 1 0
";

    fn found(place: &str) -> Vec<u64> {
        let rows: Vec<Row> = TABLE.lines().filter_map(row).collect();
        assert_eq!(rows.len(), 4);
        in_the_way(place.parse().unwrap(), Protocol::Tcp, &rows).into_iter().collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn what_listens_is_in_the_way_and_its_connections_are_not() {
        assert_eq!(found("0.0.0.0:8080"), [111]);
        assert_eq!(found("127.0.0.1:8080"), [111]);
        assert_eq!(found("0.0.0.0:8081"), [0; 0]);
        assert_eq!(found("0.0.0.0:8082"), [333], "a socket of both families");
        assert_eq!(found("[::]:8082"), [333]);
    }

    #[test]
    fn a_socket_of_ours_is_found_with_its_program() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let holders = holders(Protocol::Tcp, &[at]);
        assert_eq!(holders[0].iter().map(|holder| holder.pid).collect::<Vec<_>>(), [std::process::id()]);
        let program = holders[0][0].program.clone();
        let taken = |reservations: &[String]| taken(Protocol::Tcp, [at].into_iter(), reservations).unwrap();
        assert_eq!(taken(&[]), [Taken { at, by: holders[0].clone() }]);
        assert_eq!(taken(&[program]), []);
        drop(listener);
        assert_eq!(taken(&[]), []);
    }
}
