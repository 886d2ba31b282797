//! `netd events`: the remembered ones, then what happens, one JSON object a line, until the client or the time ends it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use netd_api::Filters;
use netd_api::events::Event;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::App;
use super::listen::Body;
use crate::bus;

/// Lines that wait for a client that reads slowly.
const WAITING: usize = 64;

pub(super) fn stream(
    app: &App,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    filters: Filters,
) -> Body {
    let (past, mut live) = app.bus.listen(since);
    let (lines, receiver) = mpsc::channel(WAITING);
    let stop = app.stop.clone();
    tokio::spawn(async move {
        for event in past {
            if !within(&event, until) || !pass(&lines, &event, &filters).await {
                return;
            }
        }
        let end = async {
            match until.and_then(|until| until.duration_since(SystemTime::now()).ok()) {
                Some(rest) => tokio::time::sleep(rest).await,
                None if until.is_some() => {}
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                event = live.recv() => event,
                () = &mut end => return,
                () = stop.cancelled() => return,
                () = lines.closed() => return,
            };
            match event {
                Ok(event) if !pass(&lines, &event, &filters).await => return,
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "a client that follows events is too slow and has missed some");
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    Lines(receiver).boxed()
}

fn within(event: &bus::Event, until: Option<SystemTime>) -> bool {
    until.is_none_or(|until| event.time <= until)
}

/// False once nobody listens any more.
async fn pass(lines: &mpsc::Sender<Bytes>, event: &bus::Event, filters: &Filters) -> bool {
    if !wanted(event, filters) {
        return true;
    }
    let shown = Event {
        time: event.time.into(),
        r#type: event.kind.into(),
        action: event.action.into(),
        id: event.id.to_string(),
        name: event.name.clone(),
        attributes: event.attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    };
    let Ok(mut line) = serde_json::to_vec(&shown) else { return true };
    line.push(b'\n');
    lines.send(line.into()).await.is_ok()
}

fn wanted(event: &bus::Event, filters: &Filters) -> bool {
    let about = |kind: &str, wanted: &str| {
        event.kind == kind && (event.name == wanted || (!wanted.is_empty() && event.id.starts_with(wanted)))
    };
    let labels = event.attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    filters.any("type", |kind| event.kind == kind)
        && filters.any("action", |action| event.action == action)
        && filters.any("event", |action| event.action == action)
        && filters.any("network", |wanted| about("network", wanted))
        && filters.any("service", |wanted| about("service", wanted))
        && filters.any("node", |wanted| about("node", wanted))
        && filters.any("sandbox", |wanted| {
            about("sandbox", wanted)
                || event.attributes.get("container").is_some_and(|id| id.starts_with(wanted))
        })
        && filters.labels(&labels)
}

/// A channel as a response's body.
struct Lines(mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
