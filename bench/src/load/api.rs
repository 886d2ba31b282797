//! The daemon's API over one connection that is kept, as a runtime that attaches all day would use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(crate) fn open(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Wants success; how long the answer took.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &str) -> Result<Duration> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: netd\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let start = Instant::now();
        self.0.get_mut().write_all(request.as_bytes())?;
        let (status, body) = self.answer().with_context(|| format!("{method} {path}"))?;
        let took = start.elapsed();
        ensure!((200..300).contains(&status), "{method} {path}: {status} {}", body.trim_end());
        Ok(took)
    }

    fn answer(&mut self) -> Result<(u16, String)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.context("no status line")?;
        let mut length = 0;
        loop {
            let line = self.line()?.to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().context("length of the answer")?;
            }
            ensure!(!line.starts_with("transfer-encoding:"), "the answer has no length: {line}");
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "the daemon closed the connection");
        Ok(line.trim_end().into())
    }
}
