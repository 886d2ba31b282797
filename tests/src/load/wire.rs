//! What `lab_echo` and its clients say to each other. A question: seed, length and a delay in milliseconds (8, 4 and 4
//! bytes), then the bytes. An answer: the length of its head (2 bytes), the head as text, then the same bytes.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use crate::traffic::Pattern;

/// Who answered, and what it saw of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name that the server was started with.
    pub by: String,
    /// Where the server's socket says that the client is.
    pub client: SocketAddr,
    /// What a PROXY header said before: its version, the client's address, and the one it had asked for. `LOCAL` headers
    /// have no addresses.
    pub told: Option<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub version: u8,
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub seed: u64,
    pub length: u32,
    pub delay: u32,
}

impl Question {
    pub const HEAD: usize = 16;

    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; Self::HEAD + self.length as usize];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.delay.to_le_bytes());
        Pattern::new(self.seed).fill(&mut bytes[Self::HEAD..]);
        bytes
    }

    pub fn parse(head: [u8; Self::HEAD]) -> io::Result<Self> {
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let seed = u64::from(word(0)) | u64::from(word(4)) << 32;
        let question = Self { seed, length: word(8), delay: word(12) };
        if question.length > LONGEST || question.delay > 60_000 {
            return Err(invalid(format!("no question: {question:?}")));
        }
        Ok(question)
    }

    /// Whether `back` is what went out.
    pub fn matches(self, back: &[u8]) -> bool {
        let mut wanted = vec![0; self.length as usize];
        Pattern::new(self.seed).fill(&mut wanted);
        wanted == back
    }
}

impl Answer {
    pub fn write(&self, to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        let head = self.head();
        let length = u16::try_from(head.len()).map_err(|_| invalid("a long name".into()))?;
        let mut all = length.to_le_bytes().to_vec();
        all.extend(head.as_bytes());
        all.extend(bytes);
        to.write_all(&all)
    }

    /// The head; the bytes follow in `from`.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 2];
        from.read_exact(&mut length)?;
        let mut head = vec![0; u16::from_le_bytes(length).into()];
        from.read_exact(&mut head)?;
        let head = String::from_utf8_lossy(&head);
        Self::parse(&head).ok_or_else(|| invalid(format!("no answer's head: {head:?}")))
    }

    fn head(&self) -> String {
        let told = match &self.told {
            None => "-".into(),
            Some(Told { version, addresses: None }) => format!("{version} local"),
            Some(Told { version, addresses: Some((client, asked)) }) => format!("{version} {client} {asked}"),
        };
        format!("{} {} {told}", self.by, self.client)
    }

    fn parse(head: &str) -> Option<Self> {
        let words: Vec<_> = head.split(' ').collect();
        let (by, client, rest) = (words.first()?, words.get(1)?.parse().ok()?, words.get(2..)?);
        let told = match rest {
            ["-"] => None,
            [version, "local"] => Some(Told { version: version.parse().ok()?, addresses: None }),
            [version, from, to] => Some(Told {
                version: version.parse().ok()?,
                addresses: Some((from.parse().ok()?, to.parse().ok()?)),
            }),
            _ => return None,
        };
        Some(Self { by: (*by).into(), client, told })
    }
}

pub(crate) fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The most bytes of one question.
pub const LONGEST: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let addresses = (([192, 0, 2, 1], 5).into(), ([192, 0, 2, 9], 80).into());
        for told in [
            None,
            Some(Told { version: 2, addresses: None }),
            Some(Told { version: 1, addresses: Some(addresses) }),
        ] {
            let answer = Answer { by: "web1".into(), client: "[2001:db8::1]:7".parse().unwrap(), told };
            let mut bytes = Vec::new();
            answer.write(&mut bytes, b"rest").unwrap();
            let mut from = bytes.as_slice();
            assert_eq!(Answer::read(&mut from).unwrap(), answer);
            assert_eq!(from, b"rest");
        }
    }

    #[test]
    fn a_question_knows_its_bytes() {
        let question = Question { seed: 9, length: 100, delay: 3 };
        let mut bytes = question.bytes();
        let head = bytes[..Question::HEAD].try_into().unwrap();
        let parsed = Question::parse(head).unwrap();
        assert_eq!((parsed.seed, parsed.length, parsed.delay), (9, 100, 3));
        assert!(parsed.matches(&bytes[Question::HEAD..]));
        bytes[50] ^= 1;
        assert!(!parsed.matches(&bytes[Question::HEAD..]));
        assert!(Question::parse([0xff; Question::HEAD]).is_err());
    }
}
