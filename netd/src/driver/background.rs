//! A thread for what nobody should wait for: telling neighbours of a new endpoint, closing sockets that take the kernel a
//! grace period (some 10 ms) to let go of, and what the kernel itself does a moment later.

use std::any::Any;
use std::sync::mpsc::{SyncSender, sync_channel};

use netd_sys::netns::Netns;
use netd_sys::{KernelError, announce};

use crate::error::Chain;
use crate::model::Endpoint;

/// Errands that wait. Each holds a descriptor.
const WAITING: usize = 256;

type Errand = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
pub(crate) struct Background {
    queue: SyncSender<Errand>,
}

impl Background {
    pub(super) fn start() -> Result<Self, KernelError> {
        let (queue, waiting) = sync_channel::<Errand>(WAITING);
        std::thread::Builder::new()
            .name("background".into())
            .spawn(move || waiting.into_iter().for_each(|errand| errand()))
            .map_err(|error| KernelError::new("start the thread", "background", error))?;
        Ok(Self { queue })
    }

    /// Old entries for a reused address are put right at once instead of timing out. Nothing depends on it, so when
    /// too many wait, one is left out.
    pub(crate) fn announce(&self, netns: &Netns, link: u32, endpoint: &Endpoint) {
        let Ok(netns) = netns.try_clone() else { return };
        let mac = endpoint.mac;
        let addresses: Vec<_> = endpoint.addresses().collect();
        let errand = move || {
            let tell = || addresses.iter().try_for_each(|address| announce::announce(link, mac, *address));
            if let Err(error) = netns.run(tell).and_then(|told| told) {
                tracing::debug!(error = %Chain(&error), "cannot announce an address to its neighbours");
            }
        };
        self.run(errand);
    }

    /// Does it there; not at all, when too many wait.
    pub(super) fn run(&self, errand: impl FnOnce() + Send + 'static) {
        let _ = self.queue.try_send(Box::new(errand));
    }

    /// Drops it there; here, when too many wait.
    pub(crate) fn close(&self, slow: impl Any + Send) {
        let _ = self.queue.try_send(Box::new(move || drop(slow)));
    }
}
