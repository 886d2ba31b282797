//! The daemon as this plugin needs it: networks and sandboxes by their exact names, and an attachment taken off
//! in whatever state it is.

use std::io;
use std::path::Path;
use std::time::Duration;

use netd_api::client::ClientError;
use netd_api::client::blocking::Client;
use netd_api::network::{self, ListParams, Network, NetworkParams};
use netd_api::sandbox::{self, LeaveNetwork, Sandbox, SandboxParams};
use netd_api::spool::Tombstone;
use netd_api::value::Reference;
use netd_api::{Code as Said, Filter, Nothing, Verb};

use crate::error::{Code, Failure, Result};

pub(crate) struct Daemon(Client);

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

    /// Success if nothing of it is left, whoever took it away. The last network takes the sandbox along.
    pub(crate) fn detach(&self, attachment: &Tombstone) -> Result<()> {
        let params = SandboxParams { name: reference(&attachment.sandbox)? };
        let body =
            LeaveNetwork { network: attachment.network.clone(), interface: attachment.interface.clone() };
        self.call::<sandbox::Leave>(&params, &body).map(drop).map_err(|error| {
            let deed = format!("cannot take {} off the network {}", attachment.sandbox, attachment.network);
            Failure::of_daemon(deed, &error)
        })
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
