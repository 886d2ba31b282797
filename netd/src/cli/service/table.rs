//! The table of `netd service ls`.

use netd_api::service::{EndpointMode, EndpointState, Port, Service};

use crate::cli::output::Table;

pub(super) fn render(services: &[Service], id: impl Fn(&Service) -> String) -> String {
    let mut table = Table::new(&["SERVICE ID", "NAME", "NETWORK", "ADDRESS", "POLICY", "ENDPOINTS", "PORTS"]);
    for service in services {
        let ready =
            service.endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Ready).count();
        table.row([
            id(service),
            service.name.clone(),
            service.network.clone(),
            address(service),
            service.policy.as_str().into(),
            format!("{ready}/{}", service.endpoints.len()),
            service.ports.iter().map(port).collect::<Vec<_>>().join(", "),
        ]);
    }
    table.render()
}

fn address(service: &Service) -> String {
    let vips =
        service.vip.iter().map(ToString::to_string).chain(service.vip6.iter().map(ToString::to_string));
    match (&service.external_name, service.endpoint_mode) {
        (Some(name), _) => name.clone(),
        (None, EndpointMode::Dnsrr) => "dnsrr".into(),
        (None, _) => vips.collect::<Vec<_>>().join(", "),
    }
}

/// `80->8080/tcp` of the service's address, `*:8080->80/tcp` of the nodes.
fn port(port: &Port) -> String {
    let target = format!("{}/{}", port.target_port, port.protocol);
    match (port.port, port.published_port) {
        (Some(own), _) if own == port.target_port => target,
        (Some(own), _) => format!("{own}->{target}"),
        (None, Some(published)) => format!("*:{published}->{target}"),
        (None, None) => target,
    }
}
