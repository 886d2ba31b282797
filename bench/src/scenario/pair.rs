//! Two containers and the road between them: what a client in one gets from the programs in the other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::Place;

use crate::load::udp::Exchange;
use crate::load::{iperf, wrk};
use crate::measure::{FigureId, Name};
use crate::programs::{BULK, ECHO, HTTP};
use crate::site;

pub(crate) struct Pair {
    pub(crate) name: Name,
    pub(crate) client: Place,
    pub(crate) server: Place,
    /// What the client asks: the server's own address, or one that leads to it.
    pub(crate) address: IpAddr,
    pub(crate) ports: Ports,
}

/// Where the client finds the programs.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    /// nginx.
    pub(crate) http: u16,
    /// iperf3 and the echo: none where only nginx is understood.
    pub(crate) others: Option<(u16, u16)>,
}

impl Ports {
    /// Their own.
    pub(crate) const OWN: Self = Self { http: HTTP, others: Some((BULK, ECHO)) };
}

#[derive(Clone, Copy)]
pub(crate) enum Test {
    /// iperf3 with these flags.
    Bulk(&'static str, FigureId),
    /// wrk on 64 connections that are kept.
    Requests(FigureId),
    /// wrk on 64 connections, a new one for each request.
    Connections(FigureId),
    /// UDP, 64 flows with one datagram on its way each.
    Datagrams(FigureId),
}

impl Pair {
    /// Both ends take cubic, which the plain road is compared by.
    pub(crate) fn ready(&self) -> Result<()> {
        [&self.client, &self.server].into_iter().try_for_each(site::cubic)
    }

    pub(crate) fn measure(&self, test: Test, seconds: u64) -> Result<Vec<(FigureId, f64)>> {
        let at = |port| SocketAddr::new(self.address, port);
        let requests = |close| wrk::run(&self.client, at(self.ports.http), seconds, 64, close);
        let (bulk, echo) = match (self.ports.others, test) {
            (Some(others), _) => others,
            (None, Test::Requests(_) | Test::Connections(_)) => (0, 0),
            (None, Test::Bulk(..) | Test::Datagrams(_)) => return Ok(Vec::new()),
        };
        let run = || -> Result<(FigureId, f64)> {
            Ok(match test {
                Test::Bulk(flags, id) => (id, iperf::run(&self.client, at(bulk), seconds, flags)?.gigabits),
                Test::Requests(id) => (id, requests(false)?.rate),
                Test::Connections(id) => (id, requests(true)?.rate),
                Test::Datagrams(id) => {
                    let time = Duration::from_secs(seconds);
                    let exchange = Exchange { to: at(echo), flows: 64, outstanding: 1, payload: 64, time };
                    let done = self.client.enter(|| exchange.run())??;
                    ensure!(done.answered > 0, "no answer at all");
                    (id, done.rate())
                }
            })
        };
        let value = run().with_context(|| format!("from {} to {}", self.client.name, self.address))?;
        Ok(vec![value])
    }
}
