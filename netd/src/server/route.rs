//! From method and path to the handler of a verb. The verbs' declarations are the only list of paths.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Request, Response};
use netd_api::{Answer, ApiError, Verb};

use super::listen::Body;
use super::{App, decode, encode};
use crate::error::{Fault, Result};

type Reply = Pin<Box<dyn Future<Output = Result<Response<Body>>>>>;
type Handler = Box<dyn Fn(Arc<App>, Vec<(String, String)>, Request<Incoming>) -> Reply>;

#[derive(Default)]
pub(crate) struct Router {
    paths: matchit::Router<usize>,
    methods: Vec<HashMap<&'static str, (&'static str, Handler)>>,
    by_template: HashMap<&'static str, usize>,
}

impl Router {
    /// `handler` answers `V`: parameters and body arrive decoded, the answer is encoded as the verb declares.
    pub(crate) fn on<V, H, F>(&mut self, _verb: V, handler: H)
    where
        V: Verb,
        H: Fn(Arc<App>, V::Params, V::Body) -> F + Copy + 'static,
        F: Future<Output = Result<V::Response>> + 'static,
    {
        self.add::<V>(Box::new(move |app, path, request| {
            Box::pin(told(V::ID, async move {
                let params = decode::params::<V>(&path, request.uri().query())?;
                let body = decode::body::<V>(request).await?;
                let began = Instant::now();
                let result = handler(Arc::clone(&app), params, body).await;
                app.metrics.request(V::ID, result.is_ok(), began.elapsed());
                let response = result?;
                match V::ANSWER {
                    Answer::Json { status } => encode::json(status, &response),
                    Answer::Nothing => Ok(encode::nothing()),
                    Answer::Text { .. } | Answer::Lines => {
                        Err(ApiError::kernel(format!("{} has no JSON answer", V::ID)).into())
                    }
                }
            }))
        }));
    }

    /// For verbs whose answer is a text or a stream: the handler makes the response itself.
    pub(crate) fn raw<V, H, F>(&mut self, _verb: V, handler: H)
    where
        V: Verb,
        H: Fn(Arc<App>, V::Params) -> F + Copy + 'static,
        F: Future<Output = Result<Response<Body>>> + 'static,
    {
        self.add::<V>(Box::new(move |app, path, request| {
            Box::pin(told(V::ID, async move {
                let params = decode::params::<V>(&path, request.uri().query())?;
                handler(app, params).await
            }))
        }));
    }

    fn add<V: Verb>(&mut self, handler: Handler) {
        let slot = *self.by_template.entry(V::PATH).or_insert_with(|| {
            self.methods.push(HashMap::new());
            let slot = self.methods.len() - 1;
            self.paths.insert(V::PATH, slot).expect("the verbs' paths do not contradict one another");
            slot
        });
        self.methods[slot].insert(V::METHOD.as_str(), (V::ID, handler));
    }

    pub(crate) async fn handle(&self, app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>> {
        let path = request.uri().path().to_owned();
        let Ok(found) = self.paths.at(&path) else {
            let remedy = "GET /v1/openapi.json lists every path";
            return Err(ApiError::not_found(format!("there is nothing at {path}")).remedy(remedy).into());
        };
        let methods = &self.methods[*found.value];
        let Some((_, handler)) = methods.get(request.method().as_str()) else {
            let mut known: Vec<&str> = methods.keys().copied().collect();
            known.sort_unstable();
            let detail = format!("{path} does not take {}", request.method());
            return Err(ApiError::invalid(detail).remedy(format!("it takes {}", known.join(", "))).into());
        };
        let parameters = found.params.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        handler(Arc::clone(app), parameters, request).await
    }
}

/// Runs a request and has the log say how it ended, for who looks closely.
async fn told(
    verb: &'static str,
    request: impl Future<Output = Result<Response<Body>>>,
) -> Result<Response<Body>> {
    let began = Instant::now();
    let result = request.await;
    let took = began.elapsed();
    match &result {
        Ok(_) => tracing::debug!(target: "netd::server", verb, ?took, "request done"),
        Err(Fault(error)) => tracing::debug!(target: "netd::server", verb, ?took, %error, "request refused"),
    }
    result
}
