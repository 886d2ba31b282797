//! A stream of JSON objects, one a line.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::ClientError;

/// Dropping it closes the connection.
pub struct Lines<T> {
    body: Incoming,
    buffer: BytesMut,
    line: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), line: PhantomData }
    }

    /// `None` when the daemon has ended the stream. Empty lines are signs of life and are passed over.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if !line.is_empty() {
                    let parsed = serde_json::from_slice(&line);
                    return Some(parsed.map_err(|error| ClientError::Answer(error.to_string())));
                }
            } else if self.buffer.len() > LONGEST {
                return Some(Err(ClientError::Answer(format!("a line is longer than {LONGEST} bytes"))));
            } else {
                match self.body.frame().await? {
                    Ok(frame) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                    Err(error) => return Some(Err(error.into())),
                }
            }
        }
    }
}

const LONGEST: usize = 1 << 20;
