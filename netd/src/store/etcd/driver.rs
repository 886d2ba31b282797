//! The store's thread: connects to one member after the other until one answers, serves what is asked as long as that
//! lasts, and begins again.
//!
//! `connect -> lease -> sync -> {watch, keepalive, requests} until one of them fails -> connect`. While members are
//! being tried a request waits; when all of them have failed it is refused at once, until one answers.

use std::cell::Cell;
use std::future::pending;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout_at};

use super::super::{CommitError, Snapshot, StoreError, Txn};
use super::asked::Reply;
use super::client::{Client, Failure};
use super::commit::{self, Done};
use super::copy::Copy;
use super::lease::{self, Lease, Secured};
use super::restore;
use super::settings::{EtcdSettings, HostPort};
use super::shared::Shared;
use super::sync::{self, Following};
use super::wake::Waker;
use super::wire::TxnResponse;

/// Between rounds over all members, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that was good for less did not end the trouble.
const BRIEF: Duration = Duration::from_secs(1);

/// What an operator can do about an etcd that has not got this cluster's records.
pub(crate) const FOREIGN_REMEDY: &str = "give etcd its data back (a snapshot of it), or `netd cluster restore` on one node: \
    etcd gets what that node knows; to begin anew, `netd down --purge` on every node";

/// What callers ask for. Who is not answered by then has gone away.
pub(super) struct Request {
    pub deadline: Instant,
    pub wish: Wish,
}

pub(super) enum Wish {
    Commit(Txn, SyncSender<Result<Done, CommitError>>),
    Load(SyncSender<Result<Snapshot, StoreError>>),
    /// To be answered: who asks goes on to what has to be done soon then.
    Answer(Reply),
    /// Puts what is known into a store that is empty.
    Restore(Reply),
    /// Gives the lease back, and with it all that is bound to it.
    Release(SyncSender<Result<(), StoreError>>),
}

pub(super) struct Driver {
    pub settings: EtcdSettings,
    pub shared: Arc<Shared>,
    pub waker: Waker,
    /// Who has asked for an empty store to get what is known.
    pub restores: Cell<Option<Reply>>,
}

struct Session {
    client: Client,
    following: Following,
    lease: Secured,
}

/// Why a session has ended.
enum End {
    Closed,
    Lost(Failure),
}

/// Runs until the other end of `requests` is closed.
pub(super) fn run(driver: &Driver, mut lease: Lease, mut copy: Copy, mut requests: Receiver<Request>) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                () = driver.drive(&mut lease, &mut requests) => {}
                () = driver.waker.insist() => {}
                () = copy.keep(&driver.shared) => {}
            }
        }),
        Err(error) => driver.shared.note(|state| {
            state.trying(format!("cannot start a runtime: {error}"), false);
        }),
    }
    driver.shared.note(super::shared::State::closed);
    copy.finish(&driver.shared.lock().mirror);
}

impl Driver {
    async fn drive(&self, lease: &mut Lease, requests: &mut Receiver<Request>) {
        let members = &self.settings.endpoints;
        // Not every node begins with the same one.
        let mut turn = rand::rng().random_range(0..members.len());
        let (mut tried, mut pause, mut brief) = (0, PAUSE, false);
        loop {
            let member = &members[turn % members.len()];
            let established = tokio::select! {
                established = self.establish(member, lease) => established,
                () = self.turn_away(requests) => return,
            };
            let failure = match established {
                Err(failure) => {
                    tried += 1;
                    failure
                }
                Ok(session) => {
                    tried = 0;
                    self.note_session(member, &session, brief);
                    let began = Instant::now();
                    let failure = match self.serve(session, lease, requests).await {
                        End::Closed => return,
                        End::Lost(failure) => failure,
                    };
                    brief = began.elapsed() < BRIEF;
                    if brief {
                        tried = members.len();
                        tracing::debug!(%member, cause = %failure, "the connection to etcd was good for a moment");
                    } else {
                        pause = PAUSE;
                        tracing::warn!(%member, cause = %failure, "the connection to etcd is lost");
                    }
                    failure
                }
            };
            if matches!(failure, Failure::NoLease) {
                lease.forget();
            }
            let mut news = false;
            let is_foreign = matches!(failure, Failure::Foreign(_));
            self.shared.note(|state| news = state.trying(format!("{member}: {failure}"), is_foreign));
            if news {
                self.waker.wake();
            }
            turn += 1;
            if tried >= members.len() {
                self.note_outage();
                tokio::select! {
                    () = sleep(pause.mul_f64(rand::rng().random_range(0.75..1.25))) => {}
                    () = self.turn_away(requests) => return,
                }
                (tried, pause) = (0, (pause * 2).min(LONGEST_PAUSE));
            }
        }
    }

    /// One after another that does not last says nothing new.
    fn note_session(&self, member: &HostPort, session: &Session, brief: bool) {
        if !brief {
            tracing::info!(%member, new_lease = session.lease.is_new, "connected to etcd");
        }
        self.shared.note(|state| state.connected(&member.to_string(), session.lease.id));
        self.waker.wake();
    }

    fn note_outage(&self) {
        let mut news = false;
        self.shared.note(|state| news = state.away());
        if news {
            let state = self.shared.lock();
            let (cause, is_foreign) = (state.last_error().unwrap_or_default().to_owned(), state.is_foreign());
            drop(state);
            if is_foreign {
                tracing::error!(cause, remedy = FOREIGN_REMEDY, "this node does not join this etcd");
            } else {
                tracing::warn!(cause, "etcd is away: what is here goes on, what all nodes share waits");
            }
            self.waker.wake();
        }
    }

    async fn establish(&self, member: &HostPort, lease: &mut Lease) -> Result<Session, Failure> {
        let mut client = Client::connect(&self.settings, member).await?;
        let (header, id) = client.probe().await?;
        let foreign = self.shared.lock().mirror.is_foreign(id.as_deref());
        if let Some(why) = foreign {
            self.restore(&mut client, why, id.is_none()).await?;
        }
        let secured = lease.secure(&mut client, header.cluster_id).await?;
        let following = sync::begin(&mut client, &self.shared, &self.waker, &header, secured.id).await?;
        Ok(Session { client, following, lease: secured })
    }

    /// An empty store gets what was known, if somebody has asked for that; else it is not this cluster's.
    async fn restore(&self, client: &mut Client, why: &'static str, is_empty: bool) -> Result<(), Failure> {
        let Some(reply) = self.restores.take().filter(|reply| !reply.is_closed()) else {
            return Err(Failure::Foreign(why));
        };
        let known = self.shared.lock().mirror.clone();
        let restored = match is_empty {
            true => restore::put_back(client, &known).await,
            false => Err(Failure::Foreign(why)),
        };
        tell(reply, restored.as_ref().err());
        restored
    }

    /// Ends when the store is closed. Whoever asks before all members have been tried may wait for the next.
    async fn turn_away(&self, requests: &mut Receiver<Request>) {
        if self.shared.lock().outage().is_none() {
            return pending().await;
        }
        while let Some(request) = requests.recv().await {
            let cause = self.shared.lock().outage().unwrap_or_default();
            match request.wish {
                // For the next try.
                Wish::Restore(reply) => drop(self.restores.replace(Some(reply))),
                wish => wish.refuse(&self.settings.names(), &cause),
            }
        }
    }

    async fn serve(&self, session: Session, lease: &Lease, requests: &mut Receiver<Request>) -> End {
        let Session { client, following, lease: Secured { id, .. } } = session;
        let mut watching = client.clone();
        tokio::select! {
            failure = sync::follow(following, &mut watching, &self.shared, &self.waker) => End::Lost(failure),
            failure = lease::keep(client.clone(), id, lease.ttl()) => End::Lost(failure),
            end = self.answer(client, id, requests) => end,
        }
    }

    /// One after another; a failure that leaves the outcome open ends the session, so that the next question is
    /// answered by a member that is known to be there.
    async fn answer(&self, mut client: Client, lease: i64, requests: &mut Receiver<Request>) -> End {
        while let Some(Request { deadline, wish }) = requests.recv().await {
            if deadline <= Instant::now() {
                continue;
            }
            let failure = match wish {
                Wish::Commit(txn, reply) => {
                    let (result, failure) = self.commit(&mut client, lease, &txn, deadline).await;
                    let _ = reply.try_send(result);
                    failure
                }
                Wish::Load(reply) => {
                    let (result, failure) = match sync::load(&mut client).await {
                        Ok(sync::Loaded { revision, entries, .. }) => {
                            (Ok(Snapshot { revision, entries }), None)
                        }
                        Err(failure) => (Err(self.unavailable(&failure)), Some(failure)),
                    };
                    let _ = reply.try_send(result);
                    failure
                }
                Wish::Answer(reply) => {
                    let failure = client.probe().await.err();
                    tell(reply, failure.as_ref());
                    failure
                }
                Wish::Restore(reply) => {
                    let _ = reply
                        .send(Err("etcd has this cluster's records: there is nothing to restore".into()));
                    None
                }
                Wish::Release(reply) => {
                    let result = lease::revoke(&mut client, lease).await;
                    let _ = reply.try_send(result.map_err(|failure| self.unavailable(&failure)));
                    // Its holder is about to close the store; a new lease would only be in the way.
                    requests.close();
                    return End::Closed;
                }
            };
            if let Some(failure @ (Failure::Lost(_) | Failure::NoLease)) = failure {
                return End::Lost(failure);
            }
        }
        End::Closed
    }

    async fn commit(
        &self,
        client: &mut Client,
        lease: i64,
        txn: &Txn,
        deadline: Instant,
    ) -> (Result<Done, CommitError>, Option<Failure>) {
        let question = commit::request(txn, lease);
        let asking = client.call("/etcdserverpb.KV/Txn", question);
        let answered: Result<TxnResponse, Failure> = match timeout_at(deadline.into(), asking).await {
            Ok(answered) => answered,
            Err(_) => Err(Failure::Lost(format!("no answer within {:?}", self.settings.timeout))),
        };
        match answered {
            Ok(response) => (commit::outcome(txn, &response), None),
            Err(Failure::Refused(cause)) => (Err(CommitError::Refused { cause }), None),
            Err(Failure::NoLease) => {
                let cause = "this node's lease is lost, a new one is being taken".to_owned();
                let error = CommitError::Unavailable { endpoints: self.settings.names(), cause };
                (Err(error), Some(Failure::NoLease))
            }
            Err(failure @ (Failure::Lost(_) | Failure::TooBig(_) | Failure::Foreign(_))) => {
                (Err(CommitError::Unclear { cause: failure.to_string() }), Some(failure))
            }
        }
    }

    fn unavailable(&self, failure: &Failure) -> StoreError {
        StoreError::Unavailable { endpoints: self.settings.names(), cause: failure.to_string() }
    }
}

/// Who has asked may have gone.
fn tell(reply: Reply, failure: Option<&Failure>) {
    let _ = reply.send(failure.map_or(Ok(()), |failure| Err(failure.to_string())));
}

impl Wish {
    fn refuse(self, endpoints: &str, cause: &str) {
        let (endpoints, cause) = (endpoints.to_owned(), cause.to_owned());
        match self {
            Self::Commit(_, reply) => {
                let _ = reply.try_send(Err(CommitError::Unavailable { endpoints, cause }));
            }
            Self::Answer(reply) | Self::Restore(reply) => {
                let _ = reply.send(Err(cause));
            }
            Self::Load(reply) => {
                let _ = reply.try_send(Err(StoreError::Unavailable { endpoints, cause }));
            }
            Self::Release(reply) => {
                let _ = reply.try_send(Err(StoreError::Unavailable { endpoints, cause }));
            }
        }
    }
}
