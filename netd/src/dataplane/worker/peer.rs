//! One control plane's connection, as the data plane sees it: greeting, inventory, batches.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use netd_proxy::Health;
use netd_sys::seqpacket::Connection;
use nix::sys::eventfd::EventFd;

use super::super::frame::{FrameError, MAX_PACKET, PROTOCOL, Packer, Reply, Request, Sockets, decode};
use super::super::outbox::Outbox;
use super::super::pieces::{MAX_MESSAGE, PieceError, Pieces};
use super::super::plane::Plane;
use crate::tables::Change;

/// Packets taken in one go, before signals and newer control planes are looked at.
const BURST: usize = 64;

pub(crate) struct Peer {
    connection: Arc<Connection>,
    outbox: Arc<Outbox>,
    buffer: Vec<u8>,
    pieces: Pieces,
    greeted: bool,
    batch: Option<Open>,
}

/// A batch that has begun.
struct Open {
    revision: u64,
    full: bool,
    changes: Vec<Change>,
    sockets: Vec<Sockets>,
}

/// What the process has to do after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Serve,
    Drain(Duration),
    Stop,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("the link failed")]
    Io(#[from] io::Error),
    #[error("the control plane closed the link")]
    Closed,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Piece(#[from] PieceError),
    #[error("the control plane speaks protocol {0}, this build speaks {PROTOCOL}")]
    Protocol(u32),
    #[error("the control plane sent {0}")]
    Order(&'static str),
}

impl Peer {
    pub(crate) fn new(connection: Connection, wake: Arc<EventFd>) -> Self {
        let connection = Arc::new(connection);
        let outbox = Outbox::new(Arc::clone(&connection), move || {
            // It only fails when the counter is full, and then the main thread is about to wake anyway.
            let _ = wake.write(1);
        });
        let buffer = vec![0; MAX_PACKET];
        let (outbox, pieces) = (Arc::new(outbox), Pieces::default());
        Self { connection, outbox, buffer, pieces, greeted: false, batch: None }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Takes what has come.
    pub(crate) fn receive(&mut self, plane: &mut Plane, build: &str) -> Result<Order, PeerError> {
        for _ in 0..BURST {
            let received = match self.connection.recv(&mut self.buffer) {
                Ok(received) if received.length == 0 => return Err(PeerError::Closed),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Order::Serve),
                Err(error) => return Err(error.into()),
            };
            let packet = &self.buffer[..received.length];
            let Some(list) = self.pieces.join(packet, !received.fds.is_empty())? else { continue };
            for (request, fds) in decode::<Request>(&list, received.fds)? {
                let order = self.take(request, fds, plane, build)?;
                if order != Order::Serve {
                    return Ok(order);
                }
            }
        }
        Ok(Order::Serve)
    }

    fn take(
        &mut self,
        request: Request,
        fds: Vec<OwnedFd>,
        plane: &mut Plane,
        build: &str,
    ) -> Result<Order, PeerError> {
        match request {
            Request::Hello { protocol, build: theirs } => {
                tracing::info!(build = theirs, "a control plane has come");
                self.greet(protocol, plane, build)?;
            }
            Request::Unknown => {}
            _ if !self.greeted => return Err(PeerError::Order("something before its greeting")),
            Request::Begin { revision, full } => {
                self.batch = Some(Open { revision, full, changes: Vec::new(), sockets: Vec::new() });
            }
            Request::Sockets { key, used, .. } => {
                let sockets = Sockets { key, used, fds };
                match &mut self.batch {
                    Some(batch) => batch.sockets.push(sockets),
                    None => plane.supply(sockets),
                }
            }
            Request::Change { change } => match &mut self.batch {
                Some(batch) => batch.changes.push(change),
                None => return Err(PeerError::Order("a change outside of a batch")),
            },
            Request::Commit { revision } => self.commit(revision, plane)?,
            Request::Stats { id } => {
                let mut packer = Packer::default();
                for part in plane.stats() {
                    packer.push(&Reply::Stats { id, part: Box::new(part) })?;
                }
                packer.push(&Reply::StatsEnd { id })?;
                self.outbox.send(packer.finish());
            }
            Request::LogFilter { filter } => match crate::telemetry::set_filter(&filter) {
                Ok(()) => tracing::info!(filter, "changed what is logged"),
                Err(error) => {
                    tracing::warn!(filter, error = %format_args!("{error:#}"), "cannot change what is logged");
                }
            },
            Request::Drain { milliseconds } => return Ok(Order::Drain(Duration::from_millis(milliseconds))),
            Request::Stop => return Ok(Order::Stop),
        }
        Ok(Order::Serve)
    }

    fn greet(&mut self, protocol: u32, plane: &mut Plane, build: &str) -> Result<(), PeerError> {
        let mut packer = Packer::default();
        packer.push(&Reply::Hello {
            protocol: PROTOCOL,
            build: build.to_owned(),
            pid: std::process::id(),
            revision: plane.revision(),
            largest: MAX_MESSAGE,
        })?;
        if protocol != PROTOCOL {
            self.outbox.send(packer.finish());
            return Err(PeerError::Protocol(protocol));
        }
        for sockets in plane.inventory() {
            packer.push_sockets(sockets, |key, used, count| Reply::Inventory { key, used, count })?;
        }
        packer.push(&Reply::InventoryEnd)?;
        self.outbox.send(packer.finish());
        self.greeted = true;
        let outbox = Arc::clone(&self.outbox);
        plane.on_need(move |key, used| send(&outbox, &Reply::NeedSockets { key, used }));
        let outbox = Arc::clone(&self.outbox);
        plane.on_health(move |Health { service, backend, verdict }| {
            let (service, backend) = (Arc::clone(service), Arc::clone(backend));
            let why = verdict.err().map(|why| why.to_string().into());
            send(&outbox, &Reply::Health { service, backend, well: verdict.is_ok(), why });
        });
        Ok(())
    }

    /// Applies the open batch. The acknowledgement is sent by whichever server's thread is the last to serve it.
    fn commit(&mut self, revision: u64, plane: &mut Plane) -> Result<(), PeerError> {
        let Some(Open { revision: begun, full, changes, sockets }) = self.batch.take() else {
            return Err(PeerError::Order("the end of a batch that never began"));
        };
        if begun != revision {
            return Err(PeerError::Order("the end of another batch"));
        }
        let outbox = Arc::clone(&self.outbox);
        let served = move |error| send(&outbox, &Reply::Applied { revision, error });
        plane.apply(revision, full, changes, sockets, Box::new(served));
        Ok(())
    }
}

fn send(outbox: &Outbox, reply: &Reply) {
    let mut packer = Packer::default();
    match packer.push(reply) {
        Ok(()) => outbox.send(packer.finish()),
        Err(error) => tracing::error!(%error, "cannot put a reply into words"),
    }
}
