//! The daemon's API as a hostile or simple client sees it: bytes to a Unix socket, bytes back.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::place::PATIENCE;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("JSON of {self:?}"))
    }

    /// A problem document with this status and stable code, whose text contains `fragment` in any case.
    pub fn problem(self, status: u16, code: &str, fragment: &str) -> Result<Self> {
        let is_problem = self.head.to_lowercase().contains("application/problem+json");
        let says = self.body.to_lowercase().contains(&fragment.to_lowercase());
        let named = self.json().is_ok_and(|body| body["code"] == code);
        ensure!(
            self.status == status && is_problem && named && says,
            "wanted a problem document {status} {code} about {fragment:?}, got {self:?}"
        );
        Ok(self)
    }
}

/// One request on a connection of its own.
pub fn request(socket: &Path, method: &str, path: &str, body: &str) -> Result<Answer> {
    let length = body.len();
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let bytes = format!(
        "{method} {path} HTTP/1.1\r\nhost: netd\r\nconnection: close\r\n{kind}content-length: {length}\r\n\r\n{body}"
    );
    raw(socket, bytes.as_bytes())
}

/// Whatever bytes one likes; the answer is all that came until the daemon closed.
pub fn raw(socket: &Path, bytes: &[u8]) -> Result<Answer> {
    let mut stream = connect(socket)?;
    // A daemon that refuses early may close before it has read everything; what it said still counts.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).or_else(|error| if answer.is_empty() { Err(error) } else { Ok(0) })?;
    parse(&answer)
}

pub fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    stream.set_write_timeout(Some(PATIENCE * 2))?;
    Ok(stream)
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no head in {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("no status in {head:?}"))?;
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Ok(Answer { status, head: head.to_owned(), body })
}

/// The bodies of all complete chunks.
fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = after.get(..size).filter(|_| size > 0) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or("");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn chunks_are_joined() {
        let answer =
            parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "abcde"));
    }
}
