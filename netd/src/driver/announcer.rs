//! Tells neighbours of a new endpoint, in the background: their old entries for a reused address are put right at once
//! instead of timing out. Closing a packet socket takes the kernel some 10 ms, which no attach should wait for; nothing
//! depends on the announcement, so when too many wait, one is left out.

use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, sync_channel};

use netd_sys::netns::Netns;
use netd_sys::{KernelError, announce};

use crate::error::Chain;
use crate::model::Endpoint;

/// Endpoints that wait to be announced. Each holds a descriptor.
const WAITING: usize = 256;

struct Announcement {
    netns: Netns,
    link: u32,
    mac: [u8; 6],
    addresses: Vec<IpAddr>,
}

pub(crate) struct Announcer {
    queue: SyncSender<Announcement>,
}

impl Announcer {
    pub(super) fn start() -> Result<Self, KernelError> {
        let (queue, waiting) = sync_channel::<Announcement>(WAITING);
        std::thread::Builder::new()
            .name("announcer".into())
            .spawn(move || {
                for announcement in waiting {
                    if let Err(error) = announcement.make() {
                        tracing::debug!(error = %Chain(&error), "cannot announce an address to its neighbours");
                    }
                }
            })
            .map_err(|error| KernelError::new("start the thread", "announcer", error))?;
        Ok(Self { queue })
    }

    pub(super) fn announce(&self, netns: &Netns, link: u32, endpoint: &Endpoint) {
        let Ok(netns) = netns.try_clone() else { return };
        let addresses = endpoint.addresses().collect();
        let _ = self.queue.try_send(Announcement { netns, link, mac: endpoint.mac, addresses });
    }
}

impl Announcement {
    fn make(&self) -> Result<(), KernelError> {
        let tell = |address: &IpAddr| announce::announce(self.link, self.mac, *address);
        self.netns.run(|| self.addresses.iter().try_for_each(tell))?
    }
}
