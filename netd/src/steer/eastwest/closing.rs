//! Ends connections that were led to a backend which is gone, on a thread of its own: the kernel goes through all sockets of
//! the machine for it, once for each namespace that has been led to such a backend.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use netd_sys::KernelError;
use netd_sys::bpf::eastwest::{Connections, Gone};
use netd_sys::netns::Netns;

use crate::error::Chain;
use crate::model::{Model, SandboxKey, Service};

/// A program that was led there just before may only now be making its socket a connected one.
const SETTLING: Duration = Duration::from_millis(100);
/// Changes that wait. What is one too many leaves its sockets as they are.
const WAITING: usize = 1024;

#[derive(Debug)]
pub(super) struct Closer {
    queue: SyncSender<Job>,
}

#[derive(Debug)]
struct Job {
    due: Instant,
    gone: BTreeSet<Gone>,
    clients: Vec<Client>,
}

/// A namespace, if what is at the path is still the same one.
#[derive(Debug)]
pub(super) struct Client {
    name: Arc<str>,
    netns: PathBuf,
    identity: (u64, u64),
}

/// Who may have been led to a backend of this service.
pub(super) fn clients(service: &Service, model: &Model) -> Vec<Client> {
    let on = model.sandboxes.by(&SandboxKey::On(Arc::clone(&service.network)));
    on.map(|sandbox| Client {
        name: Arc::clone(&sandbox.name),
        netns: sandbox.netns.clone(),
        identity: sandbox.netns_identity,
    })
    .collect()
}

impl Closer {
    pub(super) fn start(connections: Connections) -> Result<Self, KernelError> {
        let (queue, waiting) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("eastwest".into())
            .spawn(move || work(&connections, &waiting))
            .map_err(|error| KernelError::new("start the thread", "eastwest", error))?;
        Ok(Self { queue })
    }

    pub(super) fn end(&self, gone: BTreeSet<Gone>, clients: Vec<Client>) {
        let job = Job { due: Instant::now() + SETTLING, gone, clients };
        if self.queue.try_send(job).is_err() {
            tracing::warn!("too much is gone at once: some connections to it stay open");
        }
    }
}

fn work(connections: &Connections, waiting: &Receiver<Job>) {
    for job in waiting {
        while let Some(left) = job.due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        for client in &job.clients {
            match end(connections, client, &job.gone) {
                Ok(0) => {}
                Ok(count) => {
                    tracing::debug!(sandbox = %client.name, count, "ended connections to a backend that is gone");
                }
                Err(error) => {
                    let error = Chain(&error);
                    tracing::warn!(sandbox = %client.name, %error, "its connections to a backend that is gone stay open");
                }
            }
        }
    }
}

fn end(connections: &Connections, client: &Client, gone: &BTreeSet<Gone>) -> Result<usize, KernelError> {
    let netns = match Netns::open(&client.netns) {
        Ok(netns) if (netns.id().device, netns.id().inode) == client.identity => netns,
        // It has gone, and its sockets with it.
        Ok(_) | Err(_) => return Ok(0),
    };
    let cookie = netns.cookie()?;
    let mut concerned = Vec::new();
    for gone in gone {
        if connections.has(cookie, gone.backend)? {
            concerned.push(*gone);
        }
    }
    if concerned.is_empty() { Ok(0) } else { connections.end(&netns, &concerned) }
}
