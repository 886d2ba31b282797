//! The tasks that wait for upstream servers: one reader for each socket, one timer for all questions, and one short task
//! for each exchange over TCP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use netd_sys::datagram::RecvBatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until, timeout};

use crate::forward::{Outline, Ticket, Unsendable};
use crate::outlets::{OutletKey, encode};
use crate::readable::Readable;
use crate::resolver::Resolver;
use crate::table::SocketUse;
use crate::target::{Place, Upstream};

/// Replies taken at once. Each may be as long as UDP allows; memory is used only as far as it has been written.
const REPLIES: usize = 16;
const MOST_REPLY: usize = 1 << 16;

/// After an error that is not about one question.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// TCP exchanges at one time.
const MOST_EXCHANGES: usize = 128;
const EXCHANGE_TIME: Duration = Duration::from_millis(2500);

/// Starts a reader for each socket that has none.
pub(crate) fn read_new_outlets(resolver: &Rc<Resolver>) {
    let unread = resolver.outlets.borrow_mut().take_unread();
    for (key, socket) in unread {
        let task = spawn_local(read_replies(resolver.clone(), key, socket));
        resolver.outlets.borrow_mut().set_reader(key, task.abort_handle());
    }
}

async fn read_replies(resolver: Rc<Resolver>, key: OutletKey, socket: Rc<Readable>) {
    loop {
        let Ok(mut ready) = socket.ready().await else { return };
        let received = resolver.replies.borrow_mut().recv(socket.as_fd());
        let now = Instant::now();
        match received {
            Ok(_) => {
                let replies = resolver.replies.borrow();
                for datagram in replies.iter() {
                    resolver.upstream_datagram(key, datagram.source, datagram.payload, now);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                continue;
            }
            Err(error) => {
                resolver.upstream_refused(key, now);
                if error.kind() != io::ErrorKind::ConnectionRefused {
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
        resolver.settle(now);
        tokio::task::yield_now().await;
    }
}

pub(crate) fn reply_batch() -> RecvBatch {
    RecvBatch::new(REPLIES, MOST_REPLY)
}

/// Wakes when a question has waited long enough for something to be done about it; sleeps while there is none.
pub(crate) async fn watch_time(resolver: Rc<Resolver>) {
    loop {
        match resolver.on_timer(Instant::now()) {
            None => resolver.sooner.notified().await,
            Some(next) => {
                tokio::select! {
                    () = sleep_until(next.into()) => {}
                    () = resolver.sooner.notified() => {}
                }
            }
        }
    }
}

/// Asks one server over TCP, in a task of its own.
pub(crate) fn start_exchange(
    resolver: &Rc<Resolver>,
    upstream: &Upstream,
    ticket: Ticket,
    outline: Outline<'_>,
) -> Result<(), Unsendable> {
    if resolver.exchanges.get() >= MOST_EXCHANGES {
        return Err(Unsendable);
    }
    let socket = match upstream.place {
        Place::Host => None,
        place => {
            let (socket, left) =
                resolver.outlets.borrow_mut().take_stream(place, upstream.address).ok_or(Unsendable)?;
            if left == 0 {
                want_stream(resolver, place, upstream.address);
            }
            Some(socket)
        }
    };
    let mut question = Vec::new();
    encode(&mut question, rand::random(), outline);
    upstream.counters.asked();
    let (resolver, server) = (resolver.clone(), upstream.address);
    resolver.exchanges.update(|exchanges| exchanges + 1);
    spawn_local(async move {
        let reply = timeout(EXCHANGE_TIME, exchange(socket, server, &question)).await;
        resolver.exchanges.update(|exchanges| exchanges - 1);
        let reply = reply.ok().and_then(Result::ok);
        resolver.upstream_streamed(ticket, reply.as_deref(), Instant::now());
    });
    Ok(())
}

async fn exchange(socket: Option<OwnedFd>, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = match socket {
        None => TcpStream::connect(server).await?,
        Some(socket) => {
            let socket = std::net::TcpStream::from(socket);
            socket.set_nonblocking(true)?;
            TcpSocket::from_std_stream(socket).connect(server).await?
        }
    };
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    if reply.first_chunk::<2>() == question.first_chunk::<2>() {
        Ok(reply)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the reply has another id than the question"))
    }
}

/// Tells the owner that a view has used its last TCP socket of this family.
fn want_stream(resolver: &Resolver, place: Place, server: SocketAddr) {
    let usage = if server.is_ipv6() { SocketUse::UpstreamTcp6 } else { SocketUse::UpstreamTcp4 };
    if let (Some(view), Some(want)) = (resolver.places.borrow().get(&place), &resolver.config.on_want) {
        want(view, usage);
    }
}
