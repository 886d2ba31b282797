//! One question to one backend: connect, to the address of the other family if the first refuses; ask, if there is
//! something to ask; read no more than it takes to know. The socket is gone with the answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use netd_sys::poll::{Interest, Poller};
use netd_sys::socket::{self, Connecting};

use super::answer::{self, Answer};
use super::{Target, Unwell};

/// How far a question has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// An event will tell.
    Pending,
    Good,
    Bad(Unwell),
    /// The process has no descriptor for it: that says nothing of the backend.
    Unasked,
}

#[derive(Debug)]
pub(super) struct Attempt {
    stream: TcpStream,
    address: SocketAddr,
    connected: bool,
    /// Where else to ask.
    other: Option<SocketAddr>,
    path: Option<Arc<str>>,
    heard: Vec<u8>,
}

/// Read at once.
const PIECE: usize = 1024;

impl Attempt {
    /// Begins; events come under `token`.
    pub(super) fn begin(target: &Target, poller: &Poller, token: u64) -> Result<Self, Progress> {
        let [first, second] = target.addresses;
        let other = second.filter(|_| first.is_some());
        let Some(address) = first.or(second) else { return Err(Progress::Unasked) };
        match connect(address, poller, token) {
            Ok(stream) => Ok(Self {
                stream,
                address,
                connected: false,
                other,
                path: target.path.clone(),
                heard: Vec::new(),
            }),
            Err(bad @ Progress::Bad(_)) => {
                let again = Target { addresses: [None, other], path: target.path.clone() };
                other.map_or(Err(bad), |_| Self::begin(&again, poller, token))
            }
            Err(other) => Err(other),
        }
    }

    /// Something has happened to the socket.
    pub(super) fn go_on(&mut self, writable: bool, poller: &Poller, token: u64) -> Progress {
        if !self.connected {
            // Until its end is known a connecting socket is neither writable nor hung up.
            if !writable {
                return Progress::Pending;
            }
            match self.stream.take_error() {
                Ok(None) => self.connected = true,
                Ok(Some(error)) | Err(error) => return self.elsewhere(&error, poller, token),
            }
            match self.ask() {
                Progress::Pending => {}
                known => return known,
            }
        }
        self.hear()
    }

    fn elsewhere(&mut self, error: &io::Error, poller: &Poller, token: u64) -> Progress {
        let Some(address) = self.other.take() else { return Progress::Bad(unwell(error)) };
        match connect(address, poller, token) {
            Ok(stream) => {
                // Dropping the old socket closes it and takes it out of the poller.
                (self.stream, self.address) = (stream, address);
                Progress::Pending
            }
            Err(why) => why,
        }
    }

    /// To be connected is the answer, where nothing more is asked.
    fn ask(&mut self) -> Progress {
        let Some(path) = &self.path else { return Progress::Good };
        // A byte that is not part of a path would end the line and begin another one.
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Progress::Bad(Unwell::Garbled);
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: netd-health\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.address
        );
        // It fits into the empty buffer of a new connection.
        match self.stream.write(request.as_bytes()) {
            Ok(written) if written == request.len() => Progress::Pending,
            Ok(_) => Progress::Bad(Unwell::Broken),
            Err(error) => Progress::Bad(unwell(&error)),
        }
    }

    fn hear(&mut self) -> Progress {
        let mut piece = [0; PIECE];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Progress::Bad(Unwell::Garbled),
                Ok(filled) => {
                    self.heard.extend_from_slice(&piece[..filled]);
                    match answer::status(&self.heard) {
                        Answer::More => {}
                        Answer::Status(200..=399) => return Progress::Good,
                        Answer::Status(status) => return Progress::Bad(Unwell::Status(status)),
                        Answer::Bad => return Progress::Bad(Unwell::Garbled),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Progress::Bad(unwell(&error)),
            }
        }
    }
}

fn connect(address: SocketAddr, poller: &Poller, token: u64) -> Result<TcpStream, Progress> {
    let watched = socket::connect(address).and_then(|Connecting { stream, .. }| {
        // One that is connected already is writable, which is told like any other event.
        poller.add(&stream, token, Interest::STREAM)?;
        Ok::<_, io::Error>(stream)
    });
    watched.map_err(|error| match socket::no_descriptors(&error) {
        true => Progress::Unasked,
        false => Progress::Bad(unwell(&error)),
    })
}

fn unwell(error: &io::Error) -> Unwell {
    match error.kind() {
        ErrorKind::ConnectionRefused => Unwell::Refused,
        ErrorKind::TimedOut => Unwell::Late,
        _ => Unwell::Broken,
    }
}
