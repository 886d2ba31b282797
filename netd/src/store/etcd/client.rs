//! One connection to one member of etcd: calls, streams, and what a failure of theirs means.

use std::error::Error;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::super::{CLUSTER, Value};
use super::prefixed;
use super::settings::{EtcdSettings, HostPort, Login, Tls, read};
use super::wire::{AuthenticateRequest, AuthenticateResponse, Header, RangeRequest, RangeResponse};

/// Flow control of HTTP/2: what a load of some thousand records needs in flight.
const WINDOW: u32 = 1 << 20;
/// The largest message taken in; etcd's own requests are bounded at 1.5 MiB.
const MESSAGE: usize = 16 << 20;

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// etcd says no; nothing is changed and the connection is sound.
    #[error("{0}")]
    Refused(String),
    /// It is more than is taken in at once.
    #[error("{0}")]
    TooBig(String),
    #[error("there is no such lease")]
    NoLease,
    /// It has not got the records of this node's cluster.
    #[error("{0}")]
    Foreign(&'static str),
    /// The connection, or etcd behind it, cannot be relied on. What was asked for may be done or not.
    #[error("{0}")]
    Lost(String),
}

#[derive(Clone)]
pub(super) struct Client {
    grpc: Grpc<Channel>,
    login: Option<Login>,
    token: Option<MetadataValue<Ascii>>,
    pub timeout: Duration,
}

impl Client {
    pub(super) async fn connect(settings: &EtcdSettings, place: &HostPort) -> Result<Self, Failure> {
        let endpoint = endpoint(settings, place).map_err(Failure::Lost)?;
        let channel = match timeout(settings.timeout, endpoint.connect()).await {
            Ok(connected) => connected.map_err(|error| Failure::Lost(deepest(&error)))?,
            Err(_) => return Err(Failure::Lost(format!("no connection within {:?}", settings.timeout))),
        };
        let grpc = Grpc::with_origin(channel, endpoint.uri().clone()).max_decoding_message_size(MESSAGE);
        let mut client = Self { grpc, login: settings.login.clone(), token: None, timeout: settings.timeout };
        client.authenticate().await?;
        Ok(client)
    }

    /// Who is asked, how far it has come, and whose records it has; it answers only while most of its members work
    /// together.
    pub(super) async fn probe(&mut self) -> Result<(Header, Option<Value>), Failure> {
        let range = RangeRequest { key: prefixed(CLUSTER), ..RangeRequest::default() };
        let found: RangeResponse = self.call("/etcdserverpb.KV/Range", range).await?;
        let header = found.header.ok_or_else(|| Failure::Lost("an answer without a header".into()))?;
        Ok((header, found.kvs.into_iter().next().map(|kv| kv.value.into())))
    }

    /// One question, one answer. A token that etcd has forgotten meanwhile is replaced.
    pub(super) async fn call<Q, R>(&mut self, rpc: &'static str, question: Q) -> Result<R, Failure>
    where
        Q: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let again = self.login.is_some().then(|| question.clone());
        match (self.once(rpc, question).await, again) {
            (Err(status), Some(question)) if is_stale_token(&status) => {
                self.authenticate().await?;
                self.once(rpc, question).await.map_err(|status| meaning(&status))
            }
            (result, _) => result.map_err(|status| meaning(&status)),
        }
    }

    /// A stream each way.
    pub(super) async fn stream<Q, R>(
        &mut self,
        rpc: &'static str,
        questions: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<R>, Failure>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let request = self.with_metadata(Request::new(questions));
        let opening = async {
            self.grpc.ready().await.map_err(|error| Status::unavailable(deepest(&error)))?;
            self.grpc.streaming(request, PathAndQuery::from_static(rpc), ProstCodec::default()).await
        };
        match timeout(self.timeout, opening).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(meaning(&status)),
            Err(_) => Err(Failure::Lost(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn once<Q, R>(&mut self, rpc: &'static str, question: Q) -> Result<R, Status>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let request = self.with_metadata(Request::new(question));
        let asking = async {
            self.grpc.ready().await.map_err(|error| Status::unavailable(deepest(&error)))?;
            self.grpc.unary(request, PathAndQuery::from_static(rpc), ProstCodec::default()).await
        };
        match timeout(self.timeout, asking).await {
            Ok(answered) => answered.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn authenticate(&mut self) -> Result<(), Failure> {
        let Some(login) = self.login.clone() else { return Ok(()) };
        let password = login.password().map_err(|error| {
            let path = login.password_file.display();
            Failure::Lost(format!("cannot read the password file {path}: {error}"))
        })?;
        self.token = None;
        let question = AuthenticateRequest { name: login.user, password };
        let answer: Result<AuthenticateResponse, _> =
            self.once("/etcdserverpb.Auth/Authenticate", question).await;
        let token = answer.map_err(|status| meaning(&status))?.token;
        let token = token.parse().map_err(|_| Failure::Lost("etcd's token is not plain text".into()))?;
        self.token = Some(token);
        Ok(())
    }

    /// A member that has lost the others answers so at once, instead of holding the question.
    fn with_metadata<T>(&self, mut request: Request<T>) -> Request<T> {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// What the other end says now, from a stream of which an answer is due.
pub(super) async fn answer<R>(stream: &mut Streaming<R>) -> Result<R, Failure> {
    match stream.message().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(Failure::Lost("etcd has ended the stream".into())),
        Err(status) => Err(meaning(&status)),
    }
}

fn endpoint(settings: &EtcdSettings, place: &HostPort) -> Result<Endpoint, String> {
    let uri = place.uri(settings.tls.is_some());
    let endpoint = Endpoint::from_shared(uri).map_err(|error| deepest(&error))?;
    let endpoint = endpoint
        .connect_timeout(settings.timeout)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    match &settings.tls {
        None => Ok(endpoint),
        Some(tls) => endpoint.tls_config(tls_config(tls, place)?).map_err(|error| deepest(&error)),
    }
}

fn tls_config(tls: &Tls, place: &HostPort) -> Result<ClientTlsConfig, String> {
    let pem = |path: &std::path::Path| {
        read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let config =
        ClientTlsConfig::new().domain_name(&place.host).ca_certificate(Certificate::from_pem(pem(&tls.ca)?));
    Ok(match &tls.identity {
        None => config,
        Some(own) => config.identity(Identity::from_pem(pem(&own.certificate)?, pem(&own.key)?)),
    })
}

fn meaning(status: &Status) -> Failure {
    let text = match status.source() {
        Some(source) => deepest(source),
        None => status.message().to_owned(),
    };
    match status.code() {
        Code::NotFound if text.contains("lease") => Failure::NoLease,
        Code::OutOfRange if text.contains("message") => Failure::TooBig(text),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unimplemented => Failure::Refused(text),
        _ => Failure::Lost(text),
    }
}

/// Tokens are forgotten after five minutes without use, at a restart, and when somebody changes users or roles.
fn is_stale_token(status: &Status) -> bool {
    status.code() == Code::Unauthenticated || status.message().contains("revision of auth store is old")
}

/// The layers above it say no more than that something failed.
fn deepest(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
