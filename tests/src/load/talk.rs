//! One conversation with `lab_echo` or a web server, and how it can fail. Called from a thread that is in the client's
//! namespace already.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use nix::sys::time::TimeVal;

use super::wire::{Answer, Question};

/// At which step it failed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub step: &'static str,
    pub how: String,
}

impl Failure {
    pub(crate) fn new(step: &'static str, how: impl Into<String>) -> Self {
        Self { step, how: how.into() }
    }

    pub(crate) fn at(step: &'static str, error: &io::Error) -> Self {
        let how = match error.kind() {
            io::ErrorKind::ConnectionRefused => "refused".into(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset".into(),
            io::ErrorKind::UnexpectedEof => "closed".into(),
            // A read that has waited for its timeout is told as one that would block.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timed out".into(),
            _ => error.to_string(),
        };
        Self { step, how }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.how)
    }
}

impl std::error::Error for Failure {}

/// A connection to `lab_echo` that can be asked again and again.
pub struct Talk(TcpStream);

impl Talk {
    /// Connects, from an address and port of the client's choice if it has one (port 0: any).
    pub fn open(to: SocketAddr, from: Option<SocketAddr>, patience: Duration) -> Result<Self, Failure> {
        let connected = match from {
            None => TcpStream::connect_timeout(&to, patience),
            Some(from) => connect_from(from, to, patience),
        };
        let stream = connected.map_err(|error| Failure::at("connect", &error))?;
        let set = stream
            .set_read_timeout(Some(patience))
            .and_then(|()| stream.set_write_timeout(Some(patience)))
            .and_then(|()| stream.set_nodelay(true));
        set.map_err(|error| Failure::at("connect", &error))?;
        Ok(Self(stream))
    }

    /// Asks once and checks every byte.
    pub fn say(&mut self, seed: u64, length: u32) -> Result<Answer, Failure> {
        self.say_slowly(seed, length, 0)
    }

    /// The server takes its time, in milliseconds.
    pub fn say_slowly(&mut self, seed: u64, length: u32, delay: u32) -> Result<Answer, Failure> {
        let question = Question { seed, length, delay };
        self.0.write_all(&question.bytes()).map_err(|error| Failure::at("send", &error))?;
        let answer = Answer::read(&mut self.0).map_err(|error| Failure::at("answer", &error))?;
        let mut back = vec![0; length as usize];
        self.0.read_exact(&mut back).map_err(|error| Failure::at("bytes", &error))?;
        if question.matches(&back) { Ok(answer) } else { Err(Failure::new("bytes", "others than were sent")) }
    }

    /// Asks once, and wants the server's end of the connection after the client's.
    pub fn say_and_close(mut self, seed: u64, length: u32) -> Result<Answer, Failure> {
        let answer = self.say(seed, length)?;
        self.close().map(|()| answer)
    }

    pub fn close(mut self) -> Result<(), Failure> {
        self.0.shutdown(Shutdown::Write).map_err(|error| Failure::at("close", &error))?;
        match self.0.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::new("close", "bytes after the end")),
            Err(error) => Err(Failure::at("close", &error)),
        }
    }

    pub fn local(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn connect_from(from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // It bounds a connect, too.
    let seconds = TimeVal::new(patience.as_secs().try_into().unwrap_or(1), 0);
    socket::setsockopt(&socket, sockopt::SendTimeout, &seconds)?;
    // The same port again a moment later: what is dropped is reset, and waits for nothing.
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&socket);
    socket::bind(raw, &SockaddrStorage::from(from))?;
    socket::connect(raw, &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(socket))
}

/// One datagram there and back on a connected socket. What comes late from earlier ones is passed over.
pub fn datagram(socket: &UdpSocket, seed: u64, length: u32, patience: Duration) -> Result<Answer, Failure> {
    let question = Question { seed, length, delay: 0 };
    let sent = question.bytes();
    let end = Instant::now() + patience;
    // An error that an earlier datagram brought is told by the next call.
    if let Err(error) = socket.send(&sent) {
        return Err(Failure::at("send", &error));
    }
    let mut buffer = vec![0; 65_535];
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left)).map_err(|error| Failure::at("answer", &error))?;
        let got = socket.recv(&mut buffer).map_err(|error| Failure::at("answer", &error))?;
        let mut rest = &buffer[..got];
        let answer = Answer::read(&mut rest).map_err(|error| Failure::at("answer", &error))?;
        if question.matches(rest) {
            return Ok(answer);
        }
        if rest.len() < length as usize || Instant::now() >= end {
            return Err(Failure::new("bytes", "others than were sent"));
        }
    }
}

/// A page over HTTP on a connection of its own: status 200, as long as it says, and by whom.
pub fn fetch(to: SocketAddr, path: &str, patience: Duration) -> Result<Answer, Failure> {
    let Talk(mut stream) = Talk::open(to, None, patience)?;
    let client = stream.local_addr().map_err(|error| Failure::at("connect", &error))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| Failure::at("send", &error))?;
    let mut lines = BufReader::new(stream);
    let (mut by, mut status) = (String::new(), String::new());
    let mut length = None::<usize>;
    loop {
        let mut line = String::new();
        let read = lines.read_line(&mut line).map_err(|error| Failure::at("answer", &error))?;
        if read == 0 {
            return Err(Failure::new("answer", "closed"));
        }
        let line = line.trim_end();
        match line.split_once(": ").map(|(key, value)| (key.to_lowercase(), value)) {
            _ if status.is_empty() => line.clone_into(&mut status),
            Some((key, value)) if key == "content-length" => length = value.parse().ok(),
            Some((key, value)) if key == "server-name" => value.clone_into(&mut by),
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    if status.split(' ').nth(1) != Some("200") {
        return Err(Failure::new("answer", status));
    }
    let mut body = Vec::new();
    lines.read_to_end(&mut body).map_err(|error| Failure::at("bytes", &error))?;
    match length {
        Some(length) if body.len() == length => Ok(Answer { by, client, told: None }),
        _ => Err(Failure::new("bytes", format!("{} of {length:?}", body.len()))),
    }
}
