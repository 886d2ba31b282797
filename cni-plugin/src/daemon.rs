//! The daemon as this plugin needs it: networks and sandboxes by their exact names, and an attachment taken off
//! whatever state it is in.

use std::io;
use std::path::Path;
use std::time::Duration;

use netd_api::client::ClientError;
use netd_api::client::blocking::Client;
use netd_api::network::{self, DisconnectSandbox, ListParams, Network, NetworkParams};
use netd_api::sandbox::{self, RemoveParams, Sandbox, SandboxParams, Status};
use netd_api::value::Reference;
use netd_api::{Code as Said, Filter, Nothing, Verb};

use crate::error::{Code, Failure, Result};
use crate::spec::{OWNER, sandbox_name};

pub(crate) struct Daemon(Client);

/// What an ADD has made and a DEL takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// As netd knows it.
    pub network: String,
    pub container: String,
    pub interface: String,
}

impl Daemon {
    pub(crate) fn at(socket: &Path) -> Result<Self> {
        let client = Client::new(socket).map_err(|error: io::Error| {
            Failure::new(Code::TryAgain, "the plugin cannot open what it needs", error.to_string())
        })?;
        Ok(Self(client.timeout(PATIENCE)))
    }

    pub(crate) fn call<V: Verb>(
        &self,
        params: &V::Params,
        body: &V::Body,
    ) -> Result<V::Response, ClientError> {
        self.0.call::<V>(params, body)
    }

    /// By its name alone: what merely has an id that begins so is another one.
    pub(crate) fn network(&self, name: &str) -> Result<Option<Network>> {
        let params = NetworkParams { name: reference(name)? };
        match found(self.call::<network::Inspect>(&params, &Nothing {})) {
            Ok(found) => Ok(found.filter(|network| network.name == name)),
            Err(error) => Err(Failure::of_daemon(format!("cannot look at the network {name}"), &error)),
        }
    }

    pub(crate) fn sandbox(&self, name: &str) -> Result<Option<Sandbox>> {
        let params = SandboxParams { name: reference(name)? };
        match found(self.call::<sandbox::Inspect>(&params, &Nothing {})) {
            Ok(found) => Ok(found.filter(|sandbox| sandbox.name == name)),
            Err(error) => Err(Failure::of_daemon(format!("cannot look at the sandbox {name}"), &error)),
        }
    }

    /// All, or those on one network.
    pub(crate) fn sandboxes(&self, network: Option<&str>) -> Result<Vec<Sandbox>> {
        let filter = |name: &str| Filter { key: "network".into(), value: name.into() };
        let params = ListParams { filter: network.map(filter).into_iter().collect() };
        self.call::<sandbox::List>(&params, &Nothing {})
            .map_err(|error| Failure::of_daemon("cannot list the sandboxes", &error))
    }

    /// Success if nothing of it is left, whoever took it away.
    pub(crate) fn detach(&self, attachment: &Attachment) -> Result<()> {
        let name = sandbox_name(&attachment.container)?;
        match self.sandbox(&name)? {
            Some(sandbox) => self.detach_from(&sandbox, &attachment.network, &attachment.interface),
            None => Ok(()),
        }
    }

    /// The last network takes the sandbox along.
    pub(crate) fn detach_from(&self, sandbox: &Sandbox, network: &str, interface: &str) -> Result<()> {
        let networks = &sandbox.network_settings.networks;
        let is_ours = sandbox.config.owner.starts_with(OWNER)
            && networks.get(network).is_some_and(|endpoint| endpoint.interface == interface);
        if !is_ours {
            return Ok(());
        }
        let id = reference(&sandbox.id)?;
        let done = if networks.len() == 1 {
            let params = RemoveParams { name: id, force: true };
            found(self.call::<sandbox::Remove>(&params, &Nothing {}))
        } else {
            let params = NetworkParams { name: reference(network)? };
            found(self.call::<network::Disconnect>(&params, &DisconnectSandbox { sandbox: id }))
        };
        let deed = || format!("cannot take {} off the network {network}", sandbox.name);
        done.map(drop).map_err(|error| Failure::of_daemon(deed(), &error))
    }

    /// Removes containers' sandboxes whose namespaces are gone: their runtime has ended without a DEL. How many.
    pub(crate) fn reap(&self) -> Result<usize> {
        let dead = |sandbox: &Sandbox| {
            sandbox.state.status == Status::Dead && sandbox.config.owner.starts_with(OWNER)
        };
        let mut reaped = 0;
        for sandbox in self.sandboxes(None)?.into_iter().filter(dead) {
            let params = RemoveParams { name: reference(&sandbox.id)?, force: true };
            match found(self.call::<sandbox::Remove>(&params, &Nothing {})) {
                Ok(_) => reaped += 1,
                Err(error) => eprintln!("netd-cni: cannot remove the dead sandbox {}: {error}", sandbox.name),
            }
        }
        Ok(reaped)
    }
}

pub(crate) fn reference(name: &str) -> Result<Reference> {
    name.parse().map_err(|error: netd_api::value::Invalid| {
        Failure::new(Code::InvalidConfig, "a name is not valid", error.to_string())
    })
}

/// `None` if it is not there. Several ids may begin with a name that nothing has: the daemon calls that invalid.
fn found<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(ClientError::Api(error)) if matches!(error.code, Said::NotFound | Said::Invalid) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Below the least that runtimes allow: a minute for DEL.
const PATIENCE: Duration = Duration::from_secs(30);
