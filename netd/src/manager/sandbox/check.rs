//! What a request may not combine. Checked before anything is taken, so that a refusal changes nothing.

use std::path::Path;
use std::sync::Arc;

use netd_api::ApiError;
use netd_api::sandbox::{CreateSandbox, NetworkMode};
use netd_sys::netns::Netns;

use crate::error::{Chain, Result};
use crate::manager::{World, wire};
use crate::model::{Sandbox, SandboxKey};

/// Refuses what cannot be done, and says what will be ignored.
pub(super) fn request(world: &World, request: &CreateSandbox) -> Result<Vec<String>> {
    let name = SandboxKey::Name(Arc::from(&*request.name));
    if let Some(other) = world.model().sandboxes.by(&name).next() {
        let detail =
            format!("the name {} is in use by sandbox {}", request.name, crate::manager::short(&other.id));
        return Err(ApiError::conflict(detail)
            .at("Name")
            .remedy("remove that one, or choose another name")
            .into());
    }
    if let Some(path) = &request.netns
        && !path.is_absolute()
    {
        let detail = format!("the namespace {} is not an absolute path", path.display());
        return Err(ApiError::invalid(detail).at("Netns").remedy("begin it with /").into());
    }
    let mut warnings = Vec::new();
    match &request.network_mode {
        NetworkMode::Bridge => {}
        NetworkMode::None => {
            refuse(
                request,
                "none",
                &[("Networks", !request.networks.is_empty()), ("Publish", publishes(request))],
            )?;
        }
        NetworkMode::Host => {
            let own_files = names(request);
            let given = [("Networks", !request.networks.is_empty()), ("Netns", request.netns.is_some())];
            refuse(request, "host", &given)?;
            refuse(request, "host", &own_files)?;
            if publishes(request) {
                warnings.push(
                    "published ports are ignored with the host's network: the ports are the host's".into(),
                );
            }
        }
        NetworkMode::Container(_) => {
            let given = [
                ("Networks", !request.networks.is_empty()),
                ("Netns", request.netns.is_some()),
                ("Publish", publishes(request)),
                ("Expose", !request.expose.is_empty()),
                ("Hostname", request.hostname.is_some()),
            ];
            refuse(request, "container", &given)?;
            refuse(request, "container", &names(request))?;
        }
    }
    Ok(warnings)
}

/// What would need resolver files of its own.
fn names(request: &CreateSandbox) -> [(&'static str, bool); 5] {
    [
        ("Dns", !request.dns.is_empty()),
        ("DnsSearch", !request.dns_search.is_empty()),
        ("DnsOptions", !request.dns_options.is_empty()),
        ("ExtraHosts", !request.extra_hosts.is_empty()),
        ("Links", !request.links.is_empty()),
    ]
}

fn publishes(request: &CreateSandbox) -> bool {
    !request.publish.is_empty() || request.publish_all
}

fn refuse(request: &CreateSandbox, mode: &str, given: &[(&'static str, bool)]) -> Result<()> {
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((field, _)) => {
            let detail = format!("{field} cannot be combined with the network mode {}", request.network_mode);
            let remedy = format!("leave it out, or leave out the mode {mode}");
            Err(ApiError::invalid(detail).at(*field).remedy(remedy).into())
        }
    }
}

/// Opens what the request names.
pub(super) fn given_path(path: &Path) -> Result<Netns> {
    Netns::open(path).map_err(|error| {
        let remedy = "give the path of a network namespace, as /run/netns/NAME or /proc/PID/ns/net";
        ApiError::invalid(Chain(&error).to_string()).at("Netns").remedy(remedy).into()
    })
}

/// A namespace that somebody else made: not the host's, and nobody else's here.
pub(super) fn given_namespace(world: &World, netns: &Netns, sandbox: &Sandbox) -> Result<()> {
    let path = sandbox.netns.display();
    if netns.id() == world.kernel.host.id() {
        let detail = format!("{path} is the host's own namespace");
        return Err(ApiError::invalid(detail).at("Netns").remedy("use the network mode host").into());
    }
    let (device, inode) = wire::identity(netns.id());
    match world.model().sandboxes.by(&SandboxKey::Netns(device, inode)).next() {
        None => Ok(()),
        Some(other) => {
            let detail = format!("{path} is the namespace of sandbox {}", other.name);
            let remedy = format!("use the network mode container:{}", other.name);
            Err(ApiError::conflict(detail).at("Netns").remedy(remedy).into())
        }
    }
}
