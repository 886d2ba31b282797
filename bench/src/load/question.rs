//! A DNS client of our own: one question at a time, each timed.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netd_tests::Place;

/// How single questions fared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Of the answered ones, as they came.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
}

impl Asked {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    /// What `share` (0 to 1) of the answers did not exceed; nothing when there was none.
    pub(crate) fn latency(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * share) as usize;
        sorted.get(rank.min(sorted.len().saturating_sub(1))).copied()
    }
}

/// Asks for `names` in turn, one question outstanding, as long as `go_on` says so.
pub(crate) fn one_by_one(
    client: &Place,
    server: SocketAddr,
    names: &[String],
    mut go_on: impl FnMut() -> bool,
) -> Result<Asked> {
    let socket = client.udp(([0, 0, 0, 0], 0))?;
    socket.connect(server).with_context(|| format!("connect to {server}"))?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut asked = Asked::default();
    let (start, mut message) = (Instant::now(), Vec::new());
    for (id, name) in (0..=u16::MAX).cycle().zip(names.iter().cycle()) {
        if !go_on() {
            break;
        }
        encode(&mut message, id, name);
        let sent = Instant::now();
        match ask(&socket, &message, id) {
            Ok(()) => asked.latencies.push(sent.elapsed()),
            Err(_) => asked.failed += 1,
        }
    }
    asked.seconds = start.elapsed().as_secs_f64();
    ensure!(!asked.latencies.is_empty(), "{server} answers nothing");
    Ok(asked)
}

/// Wants an answer with an address; late answers to earlier questions are passed over.
fn ask(socket: &UdpSocket, message: &[u8], id: u16) -> Result<()> {
    socket.send(message)?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer)?;
        if identity(&answer[..length]) == Some(id) {
            ensure!(has_address(&answer[..length]), "no address in the answer");
            return Ok(());
        }
    }
}

/// A question for the IPv4 address of `name`.
pub(crate) fn encode(message: &mut Vec<u8>, id: u16, name: &str) {
    message.clear();
    message.extend(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("the bench uses short names"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
}

pub(crate) fn identity(message: &[u8]) -> Option<u16> {
    message.first_chunk().map(|id| u16::from_be_bytes(*id))
}

/// Without error, and with at least one record.
pub(crate) fn has_address(message: &[u8]) -> bool {
    message.len() >= 12 && message[3] & 0xf == 0 && (message[6], message[7]) != (0, 0)
}

const SILENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_as_the_protocol_has_it() {
        let mut message = Vec::new();
        encode(&mut message, 0x1234, "a.bc");
        assert_eq!(message[..12], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
        assert_eq!(identity(&message), Some(0x1234));
        assert!(!has_address(&message));
    }
}
