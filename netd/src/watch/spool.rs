//! Carries out what CNI plugins have noted while the daemon did not answer: at start, and whenever a note appears. See
//! `netd_api::spool`.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use netd_api::sandbox::LeaveNetwork;
use netd_api::spool::{DEFAULT, FOLDER, Spool, Waiting};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Registered;
use crate::manager;
use crate::server::App;

/// A plugin that is at work in the folder waits for the daemon itself, not for long.
const AGAIN: Duration = Duration::from_millis(50);

pub(crate) async fn spool(app: Arc<App>) {
    let own = Spool::new(app.config.state_dir.join(FOLDER));
    // Where a plugin that was told of the socket alone leaves its notes.
    let usual =
        Some(Spool::new(DEFAULT)).filter(|usual| usual.folder() != own.folder() && usual.folder().exists());
    if let Err(error) = own.make() {
        tracing::warn!(folder = %own.folder().display(), %error, "cannot make the folder for notes of CNI plugins");
    }
    let spools: Vec<Spool> = [own].into_iter().chain(usual).collect();
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(Into::into).and_then(
        |inotify| {
            for spool in &spools {
                inotify.add_watch(spool.folder(), AddWatchFlags::IN_MOVED_TO)?;
            }
            Registered::watch(inotify)
        },
    );
    for spool in &spools {
        carry_out(&app, spool).await;
    }
    let watch = match watch {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(%error, "notes of CNI plugins are carried out at the next start only");
            return;
        }
    };
    while let Ok(mut ready) = watch.readable().await {
        while ready.get_inner().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        ready.clear_ready();
        for spool in &spools {
            carry_out(&app, spool).await;
        }
    }
}

async fn carry_out(app: &App, spool: &Spool) {
    let folder = spool.folder().display();
    let held = loop {
        match spool.try_hold() {
            Ok(Some(held)) => break held,
            Ok(None) => return,
            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(AGAIN).await,
            Err(error) => {
                tracing::warn!(%folder, %error, "cannot look for notes of CNI plugins");
                return;
            }
        }
    };
    match held.waiting(&app.config.socket) {
        Ok(waiting) => {
            for one in waiting {
                leave(app, one).await;
            }
        }
        Err(error) => tracing::warn!(%folder, %error, "cannot read the notes of CNI plugins"),
    }
}

async fn leave(app: &App, one: Waiting) {
    let note = one.tombstone.clone();
    let (sandbox, network) = (note.sandbox.to_string(), note.network.to_string());
    tracing::info!(sandbox, network, "a runtime took it away while the daemon did not answer");
    let request = LeaveNetwork { network: note.network, interface: note.interface };
    match app.engine.call(move |world| manager::leave_network(world, &note.sandbox, &request)).await {
        Ok(Ok(())) => {}
        // What could be done is done; the next start repairs the rest.
        Ok(Err(error)) => tracing::warn!(sandbox, network, %error, "something is left of it"),
        // Stopping, or too much to do: the note stays.
        Err(_) => return,
    }
    if let Err(error) = one.done() {
        tracing::warn!(sandbox, network, %error, "cannot remove a note that is carried out");
    }
}
