//! The data plane's figures as the API shows them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use netd_api::ApiError;
use netd_api::stats::{Bucket, Figures, Read, Stats};
use netd_proxy::table::Protocol;

use super::route::Router;
use crate::dataplane;
use crate::dataplane::stats::Counts;

pub(super) fn routes(router: &mut Router) {
    router.on(Read, async |app, _, _| {
        let stats = app.dataplane.stats().await;
        let stats = stats
            .map_err(|error| ApiError::unavailable(error.to_string()).remedy("try again in a moment"))?;
        Ok(shown(&stats))
    });
}

fn shown(stats: &dataplane::Stats) -> Stats {
    let labels: BTreeMap<&Arc<str>, &Arc<str>> =
        stats.services.iter().map(|service| (&service.id, &service.label)).collect();
    let services = stats.services.iter().map(|service| figures(&service.label, None, &service.counts));
    let ports = stats.listeners.iter().map(|listener| {
        let service = labels.get(&listener.service).map_or("", |label| label);
        figures(service, Some(port(listener.protocol, listener.address)), &listener.counts)
    });
    let mut shown =
        Stats { time: SystemTime::now().into(), services: services.collect(), ports: ports.collect() };
    shown.services.sort_by(|a, b| a.service.cmp(&b.service));
    shown.ports.sort_by(|a, b| (&a.service, &a.port).cmp(&(&b.service, &b.port)));
    shown
}

/// `tcp/0.0.0.0:8080`.
pub(super) fn port(protocol: Protocol, address: SocketAddr) -> String {
    let protocol = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{protocol}/{address}")
}

fn figures(service: &str, port: Option<String>, counts: &Counts) -> Figures {
    let bounds = netd_proxy::CONNECT_BOUNDS.into_iter().map(Some).chain([None]);
    Figures {
        service: service.into(),
        port,
        open: counts.open,
        accepted: counts.accepted,
        failed: counts.failed.clone(),
        retries: counts.retries,
        bytes_to_backend: counts.bytes_to_backend,
        bytes_to_client: counts.bytes_to_client,
        datagrams_to_backend: counts.datagrams_to_backend,
        datagrams_to_client: counts.datagrams_to_client,
        connect: bounds.zip(&counts.connect).map(|(up_to, &count)| Bucket { up_to, count }).collect(),
        connect_seconds: counts.connect_seconds,
    }
}
