//! The client of the daemon's Unix socket: one connection a call, with a deadline and a bounded answer.
//!
//! [`Client`] is for callers that have a runtime; [`blocking::Client`] brings its own small one, for the command line
//! and the CNI plugin. The socket is opened by path each time, so a process that has moved into another network
//! namespace still reaches the daemon.

pub mod blocking;
mod lines;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::error::{ApiError, Problem};
use crate::verb::{Answer, Verb};
use crate::wire;

pub use lines::Lines;

pub const DEFAULT_SOCKET: &str = "/run/netd/netd.sock";

#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

/// Why there is no answer, or why it is no success.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon refused or failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("no daemon at {}: {}", socket.display(), absence(cause))]
    Connect { socket: PathBuf, cause: io::Error },
    #[error("the daemon did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the connection to the daemon broke")]
    Broken(#[from] hyper::Error),
    #[error("the daemon's answer cannot be read: {0}")]
    Answer(String),
}

impl Client {
    /// Calls that take longer than a minute fail; see [`Client::timeout`].
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: Duration::from_secs(60) }
    }

    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Not for [`Answer::Lines`]: see [`Client::follow`].
    pub async fn call<V: Verb>(
        &self,
        params: &V::Params,
        body: &V::Body,
    ) -> Result<V::Response, ClientError> {
        let whole = async {
            let response = self.send::<V>(params, body).await?;
            let bytes = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            decode::<V>(&bytes.map_err(|error| ClientError::Answer(error.to_string()))?.to_bytes())
        };
        self.deadline(whole).await
    }

    /// The deadline is for the first answer only: lines may come at any time after it.
    pub async fn follow<V: Verb>(&self, params: &V::Params) -> Result<Lines<V::Response>, ClientError> {
        let nothing = wire::body(b"")?;
        let response = self.deadline(self.send::<V>(params, &nothing)).await?;
        Ok(Lines::new(response.into_body()))
    }

    /// Only a success comes back.
    async fn send<V: Verb>(
        &self,
        params: &V::Params,
        body: &V::Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let body = if V::METHOD.has_body() { wire::encode(body)? } else { Vec::new() };
        let request = Request::builder()
            .method(V::METHOD.as_str())
            .uri(wire::target::<V>(params)?)
            .header(header::HOST, "netd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ApiError::invalid(error.to_string()))?;
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|cause| ClientError::Connect { socket: self.socket.clone(), cause })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender and the answer's body are dropped; its error reaches both of them.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(failure(response).await) }
    }

    async fn deadline<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_elapsed| Err(ClientError::Timeout(self.timeout)))
    }
}

impl ClientError {
    /// What the daemon said, if it is the daemon that refused.
    #[must_use]
    pub const fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }
}

fn decode<V: Verb>(bytes: &[u8]) -> Result<V::Response, ClientError> {
    let decoded = match V::ANSWER {
        Answer::Nothing => serde_json::from_slice(b"{}"),
        Answer::Text { .. } => serde_json::from_value(String::from_utf8_lossy(bytes).into()),
        Answer::Json { .. } | Answer::Lines => serde_json::from_slice(bytes),
    };
    decoded.map_err(|error| ClientError::Answer(error.to_string()))
}

async fn failure(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let bytes = match Limited::new(response.into_body(), wire::MAX_BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => return ClientError::Answer(error.to_string()),
    };
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => ClientError::Api(problem.into()),
        Err(_) => ClientError::Answer(foreign(status)),
    }
}

/// Whoever answers without a problem document is not netd, or another version of it.
fn foreign(status: StatusCode) -> String {
    format!("it says {status} without a problem document; is it netd that listens there?")
}

fn absence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "the socket does not exist; is `netd run` running?".into(),
        io::ErrorKind::ConnectionRefused => "nobody listens on the socket; is `netd run` running?".into(),
        io::ErrorKind::PermissionDenied => "permission denied; be root or in the group netd".into(),
        _ => error.to_string(),
    }
}

/// A list of ten thousand sandboxes is about 15 MiB.
const MAX_ANSWER: usize = 64 << 20;

#[cfg(test)]
mod tests;
