//! Deletes links in the background. The kernel takes some 40 ms to delete one link and hardly more for fifty, so a
//! detach only moves its link into the doomed group, and this thread deletes the group.

use std::sync::mpsc::{SyncSender, sync_channel};

use netd_sys::KernelError;
use netd_sys::netlink::{Rtnl, link};

use super::DOOMED;

pub(crate) struct Reaper {
    wake: SyncSender<()>,
}

impl Reaper {
    /// In the namespace of the calling thread.
    pub(crate) fn start() -> Result<Self, KernelError> {
        let mut rtnl = Rtnl::open()?;
        let (wake, calls) = sync_channel(1);
        std::thread::Builder::new()
            .name("reaper".into())
            .spawn(move || {
                for () in calls {
                    delete_doomed(&mut rtnl);
                }
            })
            .map_err(|error| KernelError::new("start the thread", "reaper", error))?;
        Ok(Self { wake })
    }

    /// There is something in the doomed group. A full channel means that a round is due anyway.
    pub(crate) fn wake(&self) {
        let _ = self.wake.try_send(());
    }
}

/// Also for whoever needs a name free now and can wait.
pub(crate) fn delete_doomed(rtnl: &mut Rtnl) {
    let gone = &[nix::libc::ENODEV];
    if let Err(error) = rtnl.transact(vec![link::delete_group(DOOMED).forgiving(gone)]) {
        tracing::warn!(error = %crate::error::Chain(&error), "cannot delete links in the background");
    }
}
