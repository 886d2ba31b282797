//! The receive loop of one UDP socket: a batch in, the answers out, nothing allocated. After traffic it looks again for a
//! short while before it sleeps, because waking up costs more than answering; only while that has been paying.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use netd_sys::datagram::{RecvBatch, SendBatch};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::client::{Origin, OriginWay, ViewState};
use crate::readable::Readable;
use crate::resolver::{Handled, Resolver};

/// Datagrams in a batch.
const BATCH: usize = 64;

/// After a receive that failed for another reason than that there was nothing: the kernel is out of something.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// No sensible query is longer.
const MOST_QUERY: usize = 4096;

/// The memory of all receive loops: only one of them runs at a time.
pub(crate) struct UdpBuffers {
    queries: RecvBatch,
    answers: Vec<u8>,
    places: Vec<(usize, Range<usize>)>,
    outgoing: SendBatch,
}

impl UdpBuffers {
    pub(crate) fn new() -> Self {
        Self {
            queries: RecvBatch::new(BATCH, MOST_QUERY),
            answers: Vec::with_capacity(BATCH * 512),
            places: Vec::with_capacity(BATCH),
            outgoing: SendBatch::new(BATCH),
        }
    }
}

/// Whether looking again after traffic has been paying, over all sockets.
#[derive(Default)]
pub(crate) struct SpinCredit {
    credit: Cell<u32>,
    refused: Cell<u32>,
    /// Sleeps until the next try, after others have wanted the processor.
    rest: Cell<u32>,
    next_rest: Cell<u32>,
}

impl SpinCredit {
    const MOST: u32 = 16;

    const LEAST_REST: u32 = 64;
    const MOST_REST: u32 = 4096;

    /// With the credit gone, one try in sixteen goes to see whether the traffic has changed.
    fn allows(&self) -> bool {
        if self.rest.get() > 0 {
            self.rest.update(|rest| rest - 1);
            return false;
        }
        if self.credit.get() > 0 {
            return true;
        }
        self.refused.set((self.refused.get() + 1) % Self::MOST);
        self.refused.get() == 1
    }

    fn paid(&self) {
        self.credit.set((self.credit.get() + 1).min(Self::MOST));
        self.next_rest.update(|rest| rest.saturating_sub(1));
    }

    /// Giving way took far longer than any spinning: others want the processor, and a thread that sleeps gets it sooner
    /// when its datagram comes than one that has yielded.
    fn crowded(&self) {
        self.credit.set(0);
        self.next_rest.update(|rest| (2 * rest).clamp(Self::LEAST_REST, Self::MOST_REST));
        self.rest.set(self.next_rest.get());
    }

    fn wasted(&self) {
        self.credit.update(|credit| credit.saturating_sub(1));
    }
}

/// Serves `port` until the task is aborted.
pub(crate) async fn serve(resolver: Rc<Resolver>, view: Rc<ViewState>, port: Rc<Readable>) {
    while let Ok(mut ready) = port.ready().await {
        // Someone else may have emptied the socket; nothing came in, so nothing is likely to follow.
        let mut busy_until = None;
        loop {
            match serve_batch(&resolver, &view, &port) {
                Ok(()) => {
                    match busy_until.take() {
                        Some(until) if is_long_past(until, resolver.config.spin) => resolver.spin.crowded(),
                        Some(_) => resolver.spin.paid(),
                        None => {}
                    }
                    yield_now().await;
                    if !resolver.config.spin.is_zero() && resolver.spin.allows() {
                        busy_until = Some(Instant::now() + resolver.config.spin);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let Some(until) = busy_until else { break };
                    if is_long_past(until, resolver.config.spin) {
                        resolver.spin.crowded();
                        break;
                    }
                    if Instant::now() >= until {
                        resolver.spin.wasted();
                        break;
                    }
                    // First the other processes of this resolver, of which one may be the client; then our other sockets.
                    std::thread::yield_now();
                    yield_now().await;
                }
                Err(error) => {
                    if resolver.trouble.is_due(Instant::now()) {
                        tracing::warn!(view = %view.id, %error, "cannot receive DNS queries");
                    }
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
        ready.clear_ready();
    }
}

/// Whether the spinning that was to last until `until` has taken several times `spin`.
fn is_long_past(until: Instant, spin: Duration) -> bool {
    Instant::now() >= until + 4 * spin
}

fn serve_batch(resolver: &Rc<Resolver>, view: &Rc<ViewState>, port: &Rc<Readable>) -> io::Result<()> {
    let UdpBuffers { queries, answers, places, outgoing } = &mut *resolver.udp.borrow_mut();
    queries.recv(port.as_fd())?;
    let start = Instant::now();
    answers.clear();
    places.clear();
    for (index, datagram) in queries.iter().enumerate() {
        let Some(to) = datagram.source else { continue };
        let before = answers.len();
        let way = OriginWay::Datagram { port, to, from: datagram.local };
        let origin = Origin { view, way };
        if resolver.handle(datagram.payload, &origin, start, answers) == Handled::Answered {
            places.push((index, before..answers.len()));
        }
    }
    let mut batch = outgoing.begin();
    for (index, place) in places.iter() {
        let query = queries.datagram(*index);
        // The batch has room for as many as can be received at once.
        let pushed = batch.push(query.source, query.local, None, &answers[place.clone()], 0);
        debug_assert!(pushed, "an answer for each query fits");
    }
    // What finds the buffer full is lost like any datagram; its client asks again.
    batch.send(port.as_fd());
    if !places.is_empty() {
        resolver.metrics.took(start.elapsed(), places.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_crowded_machine_spinning_is_rare() {
        let spin = SpinCredit::default();
        let mut tries = 0;
        for _ in 0..20_000 {
            if spin.allows() {
                tries += 1;
                spin.crowded();
            }
        }
        assert!((2..20).contains(&tries), "{tries}");
        // When it pays again it comes back for good.
        let mut spun = 0;
        for _ in 0..20_000 {
            if spin.allows() {
                spun += 1;
                spin.paid();
            }
        }
        assert!(spun > 15_000, "{spun}");
    }

    #[test]
    fn where_spinning_does_not_pay_it_is_tried_now_and_then() {
        let spin = SpinCredit::default();
        let tries = (0..1600).filter(|_| spin.allows()).inspect(|_| spin.wasted()).count();
        assert_eq!(tries, 100);
    }
}
