//! What a DEL leaves behind while the daemon does not answer, and the carrying out of it before anything new is made.

use std::io;

use netd_api::spool::{Spool, Tombstone};

use crate::error::{Code, Failure, Result};
use crate::spec::hash;

pub(crate) fn put(spool: &Spool, attachment: &Tombstone) -> io::Result<()> {
    spool.put(&stem(attachment), attachment)
}

/// Carries out up to [`AT_ONCE`] tombstones, that of `first` before the others. Ends early when the daemon does not
/// answer. Fails only if the folder cannot be worked through.
pub(crate) fn replay(
    spool: &Spool,
    first: &Tombstone,
    mut detach: impl FnMut(&Tombstone) -> Result<()>,
) -> Result<()> {
    let unreadable = |error: io::Error| {
        let message = format!("cannot work through the folder {}", spool.folder().display());
        Failure::new(Code::TryAgain, message, error.to_string())
    };
    let Some(held) = spool.hold().map_err(unreadable)? else { return Ok(()) };
    let mut waiting = held.waiting(&first.socket).map_err(unreadable)?;
    let own = stem(first);
    waiting.sort_by_key(|one| !one.is(&own));
    for one in waiting.into_iter().take(AT_ONCE) {
        match detach(&one.tombstone) {
            Err(failure) if failure.code == Code::TryAgain => return Ok(()),
            // The daemon has done what it could and repairs the rest when it starts.
            Err(failure) => eprintln!("netd-cni: {}: {}", failure.message, failure.details),
            Ok(()) => {}
        }
        one.done().map_err(unreadable)?;
    }
    Ok(())
}

fn stem(attachment: &Tombstone) -> String {
    let Tombstone { socket, sandbox, network, interface } = attachment;
    hash(&[&socket.to_string_lossy(), sandbox, network, interface])
}

/// About half a second of the daemon's time; it works through the rest itself.
const AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str) -> Tombstone {
        Tombstone {
            socket: "/run/netd/netd.sock".into(),
            sandbox: container.parse().unwrap(),
            network: "app".parse().unwrap(),
            interface: "eth0".parse().unwrap(),
        }
    }

    #[test]
    fn tombstones_wait_for_the_daemon_and_go_once_the_callers_own_first() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().join("spool"));
        let two = attachment("two");
        replay(&spool, &two, |_| unreachable!("nothing is there yet")).unwrap();
        for container in ["one", "two", "one", "three"] {
            put(&spool, &attachment(container)).unwrap();
        }
        replay(&spool, &two, |_| Err(Failure::new(Code::TryAgain, "nobody there", ""))).unwrap();
        let mut elsewhere = attachment("two");
        elsewhere.socket = "/run/other.sock".into();
        replay(&spool, &elsewhere, |_| unreachable!("it is another daemon's")).unwrap();
        let mut done = Vec::new();
        let refuse = |attachment: &Tombstone| {
            done.push(attachment.sandbox.to_string());
            Err(Failure::new(Code::Refused, "something is left", "of it"))
        };
        replay(&spool, &two, refuse).unwrap();
        assert_eq!((&*done[0], done.len()), ("two", 3), "{done:?}");
        replay(&spool, &two, |_| unreachable!("they are done")).unwrap();
    }
}
