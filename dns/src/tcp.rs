//! Queries over TCP: several at a time on one connection, answered in the order they are ready (RFC 7766). Everything a
//! client could hold on to is bounded: connections, of all views and of one; queries under way; time without a query,
//! for one query to arrive, and for answers to be taken.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Origin, OriginWay, ViewState};
use crate::reply::MOST_BYTES;
use crate::resolver::{Handled, Resolver};

/// What TCP clients may hold on to.
#[derive(Clone, Copy, Debug)]
pub struct TcpLimits {
    pub connections: usize,
    pub connections_per_view: usize,
    /// Queries of one connection under way.
    pub pipeline: usize,
    /// Without a query under way, before the connection is closed.
    pub idle: Duration,
    /// From a query's first byte to its last, and for a client to take an answer.
    pub patience: Duration,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_view: 64,
            pipeline: 32,
            idle: Duration::from_secs(10),
            patience: Duration::from_secs(3),
        }
    }
}

/// After the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the server ends, and stays until its connections have ended. Aborted, it takes them along.
pub(crate) async fn serve(resolver: Rc<Resolver>, view: Rc<ViewState>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = resolver.ending.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                if resolver.trouble.is_due(Instant::now()) {
                    tracing::warn!(view = %view.id, %error, "cannot accept a DNS connection");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(seat) = Seat::take(&resolver, &view) else {
            resolver.metrics.tcp_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            continue;
        };
        connections.spawn_local(async move {
            // A client that breaks off or breaks the rules loses its connection, no more.
            drop(Connection::new(&seat, stream).run().await);
        });
    }
    while connections.join_next().await.is_some() {}
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// One of the connections there may be at a time.
struct Seat {
    resolver: Rc<Resolver>,
    view: Rc<ViewState>,
}

impl Seat {
    fn take(resolver: &Rc<Resolver>, view: &Rc<ViewState>) -> Option<Self> {
        let limits = &resolver.config.tcp;
        let free = resolver.connections.get() < limits.connections
            && view.connections.get() < limits.connections_per_view;
        free.then(|| {
            resolver.connections.update(|count| count + 1);
            view.connections.update(|count| count + 1);
            Self { resolver: resolver.clone(), view: view.clone() }
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.resolver.connections.update(|count| count - 1);
        self.view.connections.update(|count| count - 1);
    }
}

struct Connection<'a> {
    seat: &'a Seat,
    stream: TcpStream,
    /// What has come in and is not answered yet; begins with a length.
    input: Vec<u8>,
    output: Vec<u8>,
    /// Answers that took a while come in here.
    late: mpsc::Receiver<Vec<u8>>,
    late_sender: mpsc::Sender<Vec<u8>>,
    under_way: usize,
}

impl<'a> Connection<'a> {
    fn new(seat: &'a Seat, stream: TcpStream) -> Self {
        let (late_sender, late) = mpsc::channel(seat.resolver.config.tcp.pipeline);
        Self { seat, stream, input: Vec::new(), output: Vec::new(), late, late_sender, under_way: 0 }
    }

    async fn run(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let limits = self.seat.resolver.config.tcp;
        let ending = self.seat.resolver.ending.clone();
        let mut begun: Option<Instant> = None;
        loop {
            while self.answer_some()? {
                begun = None;
                self.flush(limits.patience).await?;
            }
            // Trickling a query in byte by byte does not move its deadline.
            let wait = if self.input.is_empty() {
                limits.idle
            } else {
                limits.patience.saturating_sub(begun.get_or_insert_with(Instant::now).elapsed())
            };
            let may_read = self.under_way < limits.pipeline;
            let may_expire = self.under_way == 0 || (may_read && !self.input.is_empty());
            tokio::select! {
                read = self.stream.read_buf(&mut self.input), if may_read => {
                    if read? == 0 {
                        return self.finish(limits.patience).await;
                    }
                }
                Some(answer) = self.late.recv() => self.take_late(&answer, limits.patience).await?,
                () = sleep(wait), if may_expire => return Ok(()),
                () = ending.cancelled(), if self.under_way == 0 => return Ok(()),
            }
        }
    }

    async fn take_late(&mut self, answer: &[u8], patience: Duration) -> io::Result<()> {
        self.under_way -= 1;
        framed(&mut self.output, |out| {
            out.extend_from_slice(answer);
            Handled::Answered
        });
        self.flush(patience).await
    }

    /// The client has said all it wants to say, and still reads.
    async fn finish(&mut self, patience: Duration) -> io::Result<()> {
        while self.under_way > 0
            && let Some(answer) = self.late.recv().await
        {
            self.take_late(&answer, patience).await?;
        }
        Ok(())
    }

    /// Deals with queries that are in completely, as far as there is room. False when nothing more can be done before
    /// something comes in.
    fn answer_some(&mut self) -> io::Result<bool> {
        let (resolver, now) = (&self.seat.resolver, Instant::now());
        let mut used = 0;
        while self.under_way < resolver.config.tcp.pipeline
            && self.output.len() < MOST_BYTES
            && let Some(message) = framed_message(&self.input[used..])
        {
            used += 2 + message.len();
            let origin = Origin { view: &self.seat.view, way: OriginWay::Stream(&self.late_sender) };
            match framed(&mut self.output, |out| resolver.handle(message, &origin, now, out)) {
                Handled::Answered => resolver.metrics.took(now.elapsed(), 1),
                Handled::Later => self.under_way += 1,
                Handled::Dropped => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        self.input.drain(..used);
        Ok(used > 0)
    }

    async fn flush(&mut self, patience: Duration) -> io::Result<()> {
        if !self.output.is_empty() {
            timeout(patience, self.stream.write_all(&self.output)).await??;
            self.output.clear();
        }
        Ok(())
    }
}

/// The message at the start of `input`, if it is complete.
fn framed_message(input: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes(*input.first_chunk()?);
    input.get(2..2 + usize::from(length))
}

/// Appends what `write` appends, with its length in front.
fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Handled) -> Handled {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    let handled = write(out);
    if handled == Handled::Answered {
        let length = u16::try_from(out.len() - start - 2).unwrap_or(u16::MAX);
        out[start..start + 2].copy_from_slice(&length.to_be_bytes());
    } else {
        out.truncate(start);
    }
    handled
}
