//! Published ports of services that nobody can answer for: the port stays ours, and who asks for it is refused at once, as
//! if nobody listened. A listening socket would take the connection and could only break it again, and to close it would
//! let others have the port; so the kernel refuses by a rule, and ports come and go as elements of its sets.
//!
//!   tables -> `follow` -> the sets of `inet netd`

use std::collections::{BTreeMap, BTreeSet};

use netd_proxy::table::{Listener, ListenerId};
use netd_sys::KernelError;
use netd_sys::bpf::Steered;
use netd_sys::nft::{Nft, Table};

use super::answered::Answered;
use super::rules;
use super::steering::Moves;
use crate::firewall::TABLE;
use crate::tables::Change;

#[derive(Debug, Default)]
pub(crate) struct Vacancy {
    /// Ports that are bound here.
    ports: Answered,
    /// Those that are refused.
    vacant: BTreeMap<ListenerId, Steered>,
}

impl Vacancy {
    /// Takes in what changes for the data plane; with `full`, what is not put is gone. A port that we do not hold (`held`,
    /// by the listener) may be that of a program of the host, and is left alone.
    pub(crate) fn follow(&mut self, changes: &[Change], full: bool, held: impl Fn(&str) -> bool) -> Moves {
        let is_bound = |listener: &Listener| listener.funnel.is_none() && held(&listener.id);
        let touched = self.ports.follow(changes, full, is_bound);
        self.moves(touched)
    }

    fn moves(&mut self, touched: BTreeSet<ListenerId>) -> Moves {
        let mut moves = Moves::default();
        for id in touched {
            match self.ports.place(&id) {
                Some((place, false)) => {
                    let before = self.vacant.insert(id, place);
                    moves.removed.extend(before.filter(|before| *before != place));
                    moves.put.extend(Some(place).filter(|_| before != Some(place)));
                }
                Some((_, true)) | None => moves.removed.extend(self.vacant.remove(&id)),
            }
        }
        moves
    }

    /// Refuses what `follow` has taken in. After an error the host's table has to be written whole.
    pub(crate) fn carry_out(moves: &Moves, nft: &mut Nft) -> Result<(), KernelError> {
        for (set, elements) in rules::put_vacant(&moves.put) {
            nft.add_elements(TABLE, &set, &elements)?;
        }
        for (set, elements) in rules::removed_vacant(&moves.removed) {
            nft.del_elements(TABLE, &set, &elements)?;
        }
        Ok(())
    }

    /// Adds the rules to the host's table.
    pub(crate) fn render(&self, table: &mut Table) {
        table.sets.extend(rules::vacant_sets(self.vacant.values()));
        table.chains.extend(rules::vacant());
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use netd_proxy::table::{
        Backend, BackendState, Change as Proxy, Listener, Place, Protocol, Service, Source,
    };
    use netd_sys::bpf::Transport;

    use super::*;

    fn service(id: &str, states: &[BackendState]) -> Change {
        let backends = states.iter().zip(0..).map(|(state, number)| Backend {
            id: format!("{number}").into(),
            v4: None,
            v6: None,
            weight: 1,
            state: *state,
            place: Place::Here,
        });
        Change::Proxy(Proxy::PutService(Service {
            id: id.into(),
            backends: backends.collect(),
            ..Service::default()
        }))
    }

    fn listener(service: &str, port: u16) -> Change {
        Change::Proxy(Proxy::PutListener(Listener {
            id: format!("{service}:{port}").into(),
            protocol: Protocol::Tcp,
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            service: service.into(),
            funnel: None,
            target_port: None,
            proxy_protocol: None,
            source: Source::Own,
            limit: 1,
        }))
    }

    fn ports(moved: &[Steered]) -> Vec<u16> {
        assert!(moved.iter().all(|port| port.transport == Transport::Tcp));
        moved.iter().map(|port| port.port).collect()
    }

    #[test]
    fn ports_are_refused_while_nobody_can_answer() {
        use BackendState::{Draining, Failing, Leaving, Ready, Starting};
        let mut vacancy = Vacancy::default();
        let mut moved = |changes: &[Change], full| {
            let moves = vacancy.follow(changes, full, |_| true);
            (ports(&moves.put), ports(&moves.removed))
        };
        let first =
            [service("a", &[]), listener("a", 1), listener("a", 2), service("b", &[Ready]), listener("b", 3)];
        assert_eq!(moved(&first, false), (vec![1, 2], vec![]));
        assert_eq!(moved(&[service("a", &[Starting])], false), (vec![], vec![]));
        assert_eq!(moved(&[service("a", &[Failing, Draining])], false), (vec![], vec![1, 2]));
        assert_eq!(moved(&[service("a", &[Failing, Leaving])], false), (vec![1, 2], vec![]));
        assert_eq!(moved(&[service("a", &[Leaving, Draining])], false), (vec![], vec![1, 2]));
        assert_eq!(moved(&[service("b", &[Failing, Starting])], false), (vec![3], vec![]));
        let gone = Change::Proxy(Proxy::DropListener { listener: "b:3".into() });
        assert_eq!(
            moved(&[gone, Change::Proxy(Proxy::DropService { service: "b".into() })], false),
            (vec![], vec![3])
        );
        assert_eq!(moved(&[service("a", &[]), listener("a", 1)], true), (vec![1], vec![]));
        assert_eq!(moved(&[], true), (vec![], vec![1]));
    }

    #[test]
    fn ports_of_others_are_left_alone() {
        let mut vacancy = Vacancy::default();
        let moves = vacancy.follow(&[service("a", &[]), listener("a", 1)], false, |_| false);
        assert!(moves.is_empty());
    }
}
