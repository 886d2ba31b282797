//! What makes answers come back to the data plane when it has connected under its client's address: a packet from one of
//! our bridges that belongs to such a socket gets a mark, and packets with the mark are delivered here whomever they are
//! to. Made when the first listener wants it. It stays when the last one goes, because open connections need it; the next
//! start of the daemon removes it then.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use netd_proxy::table::{Change as Proxy, ListenerId, Source};
use netd_sys::KernelError;
use netd_sys::netlink::route::{self, Kind, MAIN, Route};
use netd_sys::netlink::rule::{self, Rule};
use netd_sys::netlink::{Op, Rtnl};
use netd_sys::nft::{Base, Chain, ChainKind, Field, Hook, Part, Rule as Filter, Table, Verdict};
use nix::libc;

use crate::error::Chain as Why;
use crate::firewall::BRIDGES;
use crate::tables::Change;

/// In hexadecimal, `netd` begins with 6e65 and `transparent` with 74.
const MARK: u32 = 0x6e65_7400;
const TABLE: u32 = 0x6e65;
/// Before the rules of VPNs and of whoever else leads the host's packets; after the kernel's own table of what is local.
const PRIORITY: u32 = 900;
/// NF_IP_PRI_MANGLE: after connection tracking, before the routing decision.
const MANGLE: i32 = -150;
/// The index of `lo`, in every namespace.
const LOOPBACK: u32 = 1;

#[derive(Debug, Default)]
pub(crate) struct Transparent {
    /// Whoever connects under other addresses.
    listeners: BTreeSet<ListenerId>,
    /// For other nodes' clients.
    mesh: bool,
    is_open: bool,
}

impl Transparent {
    /// Takes in what changes for the data plane; with `full`, what is not put is gone. True when it is wanted from now on:
    /// the kernel has to be told (`lead`), and the host's table be written.
    pub(crate) fn follow(&mut self, changes: &[Change], full: bool) -> bool {
        if full {
            self.listeners.clear();
            self.mesh = false;
        }
        for change in changes {
            match change {
                Change::Proxy(Proxy::PutListener(listener)) => match listener.source {
                    Source::Client { .. } => _ = self.listeners.insert(listener.id.clone()),
                    Source::Own => _ = self.listeners.remove(&listener.id),
                },
                Change::Proxy(Proxy::DropListener { listener }) => _ = self.listeners.remove(listener),
                Change::Proxy(Proxy::PutMesh(_)) => self.mesh = true,
                Change::Proxy(Proxy::DropMesh) => self.mesh = false,
                Change::Proxy(_) | Change::Dns(_) => {}
            }
        }
        let opens = !self.is_open && (self.mesh || !self.listeners.is_empty());
        self.is_open |= opens;
        opens
    }

    /// Makes the kernel hold the rules and routes that are wanted, and no others of ours.
    pub(crate) fn lead(&self) {
        let led = if self.is_open { install() } else { remove() };
        if let Err(error) = led {
            tracing::error!(
                error = %Why(&error),
                "cannot lead answers to connections under their clients' addresses: backends do not see those clients"
            );
        }
    }

    /// Adds what belongs into the host's table.
    pub(crate) fn render(&self, table: &mut Table) {
        if self.is_open {
            table.chains.push(chain());
        }
    }
}

fn chain() -> Chain {
    let parts = vec![
        Part::In(vec![Field::Iifname], BRIDGES.into()),
        Part::Transparent,
        Part::SetMark(MARK),
        Part::Verdict(Verdict::Accept),
    ];
    Chain {
        name: "transparent".into(),
        base: Some(Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: MANGLE, accept: true }),
        rules: vec![Filter::new(parts).comment("answers to connections under their clients' addresses")],
    }
}

fn rules(is_ipv4: bool) -> [Rule; 2] {
    let rule = |priority, from_link, table| Rule { is_ipv4, priority, mark: MARK, from_link, table };
    [
        // With src_valid_mark set (as by WireGuard's wg-quick) the check of where a packet comes from goes by its mark
        // too, and must not find that the host itself is there.
        rule(PRIORITY, Some("lo"), MAIN),
        rule(PRIORITY + 1, None, TABLE),
    ]
}

fn all_is_local(is_ipv4: bool) -> Option<Route> {
    let everything: IpNetwork = if is_ipv4 { "0.0.0.0/0" } else { "::/0" }.parse().ok()?;
    Some(Route { kind: Kind::Local, table: TABLE, ..Route::on_link(everything, LOOPBACK) })
}

fn install() -> Result<(), KernelError> {
    let mut rtnl = Rtnl::open()?;
    for is_ipv4 in [true, false] {
        let routes = all_is_local(is_ipv4);
        let ops = routes.iter().map(route::replace);
        let ops: Vec<Op<'_>> =
            ops.chain(rules(is_ipv4).iter().map(|it| rule::add(it).forgiving(&[libc::EEXIST]))).collect();
        match rtnl.transact(ops) {
            Err(error) if !is_ipv4 && error.errno().is_some_and(|errno| NO_IPV6.contains(&errno)) => {
                tracing::info!(error = %Why(&error), "clients' addresses are kept for IPv4 alone");
            }
            done => done?,
        }
    }
    Ok(())
}

/// Takes all of it away, whoever of us has made it. What is not there is no error.
pub(crate) fn remove() -> Result<(), KernelError> {
    let mut rtnl = Rtnl::open()?;
    let mut ops = Vec::new();
    for is_ipv4 in [true, false] {
        let gone = [libc::ENOENT, libc::ESRCH, libc::ENODEV];
        let forgiven = |op: Op<'static>| op.forgiving(&gone).forgiving(NO_IPV6);
        ops.extend(rules(is_ipv4).iter().map(|it| forgiven(rule::delete(it))));
        ops.extend(all_is_local(is_ipv4).iter().map(|it| forgiven(route::delete(it))));
    }
    rtnl.transact(ops)
}

/// What a kernel without IPv6 says.
const NO_IPV6: &[i32] = &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EINVAL];

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use netd_proxy::table::{Listener, Protocol};
    use netd_sys::nft::Family;

    use super::*;

    fn put(id: &str, source: Source) -> Change {
        Change::Proxy(Proxy::PutListener(Listener {
            id: id.into(),
            protocol: Protocol::Tcp,
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80)),
            service: "s".into(),
            funnel: None,
            target_port: None,
            proxy_protocol: None,
            source,
            limit: 1,
        }))
    }

    #[test]
    fn it_begins_with_the_first_listener_that_wants_it_and_stays() {
        let clients = || Source::Client { except: vec![] };
        let mut transparent = Transparent::default();
        let mut table = Table { family: Family::Inet, name: "t".into(), sets: vec![], chains: vec![] };
        assert!(!transparent.follow(&[put("a", Source::Own)], false));
        transparent.render(&mut table);
        assert!(table.chains.is_empty());
        assert!(transparent.follow(&[put("a", clients())], false));
        assert!(!transparent.follow(&[put("b", clients())], true));
        let gone = Change::Proxy(Proxy::DropListener { listener: "b".into() });
        assert!(!transparent.follow(&[gone], false));
        transparent.render(&mut table);
        assert_eq!(table.chains.len(), 1, "open connections need it");
    }
}
