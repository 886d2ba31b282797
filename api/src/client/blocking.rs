//! The client for callers without a runtime: each call is driven on the calling thread.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::ClientError;
use crate::verb::Verb;

pub struct Client {
    client: super::Client,
    runtime: Runtime,
}

/// See [`super::Lines`].
pub struct Lines<'client, T> {
    lines: super::Lines<T>,
    runtime: &'client Runtime,
}

impl Client {
    /// Fails only if the process may open no more descriptors. Starts no thread.
    pub fn new(socket: impl Into<PathBuf>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { client: super::Client::new(socket), runtime })
    }

    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { client: self.client.timeout(timeout), ..self }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        self.client.socket()
    }

    pub fn call<V: Verb>(&self, params: &V::Params, body: &V::Body) -> Result<V::Response, ClientError> {
        self.runtime.block_on(self.client.call::<V>(params, body))
    }

    pub fn follow<V: Verb>(&self, params: &V::Params) -> Result<Lines<'_, V::Response>, ClientError> {
        let lines = self.runtime.block_on(self.client.follow::<V>(params))?;
        Ok(Lines { lines, runtime: &self.runtime })
    }
}

impl<T: serde::de::DeserializeOwned> Iterator for Lines<'_, T> {
    type Item = Result<T, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.lines.next())
    }
}
