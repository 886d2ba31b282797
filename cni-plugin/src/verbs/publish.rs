//! Ports of a sandbox that is there: published all or none, and looked up again.

use netd_api::sandbox::{self, PortMap, PublishPort, Sandbox, SandboxParams, UnpublishPort};
use netd_api::value::{PortRange, PortSpec, PublishBy};

use crate::daemon::{Daemon, reference};
use crate::error::{Failure, Result};

/// Past the sockets that runtimes keep on these ports. They give every network the same ones: those that an earlier ADD
/// has published stay as they are.
pub(crate) fn publish(daemon: &Daemon, present: &Sandbox, ports: &[PortSpec]) -> Result<()> {
    let params = SandboxParams { name: reference(&present.id)? };
    let mut done: Vec<PortSpec> = Vec::new();
    for port in ports.iter().filter(|port| !is_published(&present.network_settings.ports, port)) {
        let body = PublishPort { port: *port, publish_by: PublishBy::Steer };
        if let Err(error) = daemon.call::<sandbox::Publish>(&params, &body) {
            for port in done {
                if let Err(error) = daemon.call::<sandbox::Unpublish>(&params, &UnpublishPort { port }) {
                    eprintln!("netd-cni: cannot close {port} again: {error}");
                }
            }
            return Err(Failure::of_daemon(format!("cannot publish {port}"), &error));
        }
        done.push(*port);
    }
    Ok(())
}

/// Every port of it.
pub(crate) fn is_published(ports: &PortMap, wanted: &PortSpec) -> bool {
    let steps = 0..wanted.container_ports().count();
    steps.into_iter().all(|step| is_bound(ports, wanted, step))
}

fn is_bound(ports: &PortMap, wanted: &PortSpec, step: u16) -> bool {
    let key = format!("{}/{}", wanted.container_ports().first() + step, wanted.protocol().as_str());
    let bindings = ports.get(&key).map_or(&[][..], Vec::as_slice);
    let host = wanted.host_ports().map(|ports| (ports.first() + step).to_string());
    bindings.iter().any(|binding| {
        let address = wanted.host_address().is_none_or(|address| binding.host_ip == address.to_string());
        address && host.as_ref().is_none_or(|port| binding.host_port == *port)
    })
}

/// Runtimes spell a range out port by port; as ranges again they are as many requests, and as many objects in the
/// daemon, as the user had in mind.
pub(crate) fn as_ranges(ports: &[PortSpec]) -> Vec<PortSpec> {
    let mut ranges: Vec<PortSpec> = Vec::new();
    for port in ports {
        match ranges.last_mut().and_then(|last| Some((joined(last, port)?, last))) {
            Some((range, last)) => *last = range,
            None => ranges.push(*port),
        }
    }
    ranges
}

/// `port` right behind `range`, on both sides.
fn joined(range: &PortSpec, port: &PortSpec) -> Option<PortSpec> {
    let same = range.protocol() == port.protocol() && range.host_address() == port.host_address();
    let after = |one: PortRange, other: PortRange| {
        (one.last().checked_add(1) == Some(other.first()))
            .then(|| PortRange::new(one.first(), other.last()).ok())?
    };
    let host = after(range.host_ports()?, port.host_ports()?)?;
    let container = after(range.container_ports(), port.container_ports())?;
    same.then(|| PortSpec::new(range.host_address(), Some(host), container, range.protocol()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(ports: &str) -> String {
        let ports: Vec<PortSpec> = ports.split(' ').map(|port| port.parse().unwrap()).collect();
        as_ranges(&ports).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ports_in_a_row_are_a_range() {
        assert_eq!(ranges("8000:80 8001:81 8002:82"), "8000-8002:80-82/tcp");
        assert_eq!(ranges("8000:80 8002:82"), "8000:80/tcp 8002:82/tcp");
        assert_eq!(ranges("8000:80 8001:80"), "8000:80/tcp 8001:80/tcp");
        assert_eq!(ranges("8000:80 8001:81/udp"), "8000:80/tcp 8001:81/udp");
        assert_eq!(ranges("127.0.0.1:8000:80 8001:81"), "127.0.0.1:8000:80/tcp 8001:81/tcp");
        assert_eq!(ranges("65534:1 65535:2"), "65534-65535:1-2/tcp");
    }

    #[test]
    fn a_range_is_published_when_all_of_it_is() {
        let binding =
            |port: u16| vec![sandbox::PortBinding { host_ip: "0.0.0.0".into(), host_port: port.to_string() }];
        let ports = PortMap::from([("80/tcp".into(), binding(8000)), ("81/tcp".into(), binding(8001))]);
        let is = |spec: &str| is_published(&ports, &spec.parse().unwrap());
        assert!(is("8000-8001:80-81") && is("8001:81") && is("0.0.0.0:8000:80"));
        assert!(!is("8000-8002:80-82") && !is("8001:80") && !is("8000:80/udp") && !is("127.0.0.1:8000:80"));
    }
}
