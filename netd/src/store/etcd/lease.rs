//! The lease that what lives and dies with this node is bound to. It outlives the process by its time to live, so a
//! control plane that restarts takes it over: its id is in the state directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::client::{Client, Failure, answer};
use super::wire::{LeaseGrantRequest, LeaseGrantResponse, LeaseRequest, LeaseResponse, LeaseRevokeResponse};

const FILE: &str = "cluster.lease";

pub(super) struct Lease {
    path: PathBuf,
    ttl: Duration,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    cluster: u64,
    id: i64,
}

/// A lease that holds.
#[derive(Clone, Copy)]
pub(super) struct Secured {
    pub id: i64,
    /// Granted just now: the keys of an older one are gone.
    pub is_new: bool,
}

impl Lease {
    /// With what the process before may have left.
    pub(super) fn open(directory: &Path, ttl: Duration) -> Self {
        let path = directory.join(FILE);
        let held = fs::read_to_string(&path).ok().and_then(|text| parse(&text));
        Self { path, ttl, held }
    }

    /// Takes the lease of before over if it still holds, or a new one.
    pub(super) async fn secure(&mut self, client: &mut Client, cluster: u64) -> Result<Secured, Failure> {
        if let Some(Held { id, .. }) = self.held.filter(|held| held.cluster == cluster) {
            let question = LeaseRequest { id };
            let found: LeaseResponse = client.call("/etcdserverpb.Lease/LeaseTimeToLive", question).await?;
            if found.ttl > 0 && found.granted_ttl == self.seconds() {
                return Ok(Secured { id, is_new: false });
            }
            // One about to end, or one of another length: its keys go now, not under our hands later.
            revoke(client, id).await?;
        }
        self.forget();
        let grant = LeaseGrantRequest { ttl: self.seconds() };
        let granted: LeaseGrantResponse = client.call("/etcdserverpb.Lease/LeaseGrant", grant).await?;
        self.remember(Held { cluster, id: granted.id });
        Ok(Secured { id: granted.id, is_new: true })
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// It does not hold any more.
    pub(super) fn forget(&mut self) {
        self.held = None;
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot forget the lease");
        }
    }

    /// Without the file the next process takes a new lease: no more than an interruption.
    fn remember(&mut self, held: Held) {
        self.held = Some(held);
        let unfinished = self.path.with_extension("lease.new");
        let text = format!("{:x} {:x}\n", held.cluster, held.id);
        let written = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, &self.path));
        if let Err(error) = written {
            tracing::warn!(%error, path = %self.path.display(), "cannot write down the lease");
        }
    }

    fn seconds(&self) -> i64 {
        i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)
    }
}

/// Takes every key that is bound to it away, at once.
pub(super) async fn revoke(client: &mut Client, id: i64) -> Result<(), Failure> {
    let revoked: Result<LeaseRevokeResponse, Failure> =
        client.call("/etcdserverpb.Lease/LeaseRevoke", LeaseRequest { id }).await;
    match revoked {
        Ok(_) | Err(Failure::NoLease) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Until the lease or the connection is lost; returns which. Three times in its life it is asked to go on, and an
/// answer is due while there is time to ask another member.
pub(super) async fn keep(mut client: Client, id: i64, ttl: Duration) -> Failure {
    let pace = ttl / 3;
    let patience = client.timeout.min(ttl / 2);
    let (sender, questions) = mpsc::channel(1);
    // Each question is taken before the next is asked, for it is answered by then.
    let ask = |sender: &mpsc::Sender<LeaseRequest>| drop(sender.try_send(LeaseRequest { id }));
    let mut asked = Instant::now();
    ask(&sender);
    let opened = client.stream("/etcdserverpb.Lease/LeaseKeepAlive", ReceiverStream::new(questions)).await;
    let mut answers: Streaming<LeaseResponse> = match opened {
        Ok(answers) => answers,
        Err(failure) => return failure,
    };
    loop {
        match timeout(patience, answer(&mut answers)).await {
            Ok(Ok(LeaseResponse { ttl: 1.., .. })) => {}
            Ok(Ok(_)) => return Failure::NoLease,
            Ok(Err(failure)) => return failure,
            Err(_) => return Failure::Lost(format!("no answer to a keepalive within {patience:?}")),
        }
        sleep_until(asked + pace).await;
        asked = Instant::now();
        ask(&sender);
    }
}

fn parse(text: &str) -> Option<Held> {
    let (cluster, id) = text.trim_end().split_once(' ')?;
    let cluster = u64::from_str_radix(cluster, 16).ok()?;
    let id = i64::from_str_radix(id, 16).ok().filter(|id| *id > 0)?;
    Some(Held { cluster, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_is_found_and_anything_else_is_nothing() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let mut lease = Lease::open(directory.path(), Duration::from_secs(5));
        let held = Held { cluster: u64::MAX, id: i64::MAX };
        lease.remember(held);
        assert_eq!(Lease::open(directory.path(), Duration::from_secs(5)).held, Some(held));
        lease.forget();
        assert_eq!(Lease::open(directory.path(), Duration::from_secs(5)).held, None);
        for text in ["", " ", "a", "a b c", "g 1", "1 0", "1 -1", "1 ffffffffffffffff"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
