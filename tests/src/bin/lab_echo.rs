//! A server for scenarios, run inside sandboxes: says its name and the client's address as it sees it, and sends back
//! what it was sent. On SIGTERM it takes what waits in the backlog, no more after that, and ends when the last
//! connection has.
//!
//!   lab_echo --name web1 [--tcp PORT]... [--udp PORT]... [--http PORT] [--proxy]
//!
//! `--proxy`: a PROXY header, version 1 or 2, comes before everything on the ports of `--tcp`. The HTTP port answers
//! `/health` with 200 or 503, `/fail` and `/mend` switch it, and any other path tells the name.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netd_tests::load::wire::{Answer, LONGEST, Question, Told};
use netd_tests::proxy_header;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::os::fd::AsFd;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab_echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Shared {
    name: String,
    proxy: bool,
    healthy: AtomicBool,
    open: AtomicUsize,
}

#[derive(Default)]
struct Arguments {
    name: String,
    tcp: Vec<u16>,
    udp: Vec<u16>,
    http: Option<u16>,
    proxy: bool,
}

fn arguments() -> Result<Arguments> {
    let mut given = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        if flag == "--proxy" {
            given.proxy = true;
            continue;
        }
        let value = words.next().with_context(|| format!("{flag} wants a value"))?;
        match flag.as_str() {
            "--name" => given.name = value,
            "--tcp" => given.tcp.push(value.parse().context("--tcp")?),
            "--udp" => given.udp.push(value.parse().context("--udp")?),
            "--http" => given.http = Some(value.parse().context("--http")?),
            _ => bail!("no flag {flag}"),
        }
    }
    Ok(given)
}

fn serve() -> Result<()> {
    let given = arguments()?;
    // Before any thread, so that all of them have it masked and only the descriptor tells.
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block()?;
    let signal = SignalFd::new(&term)?;
    let shared = Arc::new(Shared {
        name: given.name,
        proxy: given.proxy,
        healthy: AtomicBool::new(true),
        open: AtomicUsize::new(0),
    });
    let bind = |port: &u16| -> Result<TcpListener> {
        let listener =
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).with_context(|| format!("bind {port}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let mut doors: Vec<(TcpListener, Door)> = Vec::new();
    for port in &given.tcp {
        doors.push((bind(port)?, answer));
    }
    if let Some(port) = &given.http {
        doors.push((bind(port)?, page));
    }
    for port in given.udp {
        let socket =
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(|| format!("bind {port}/udp"))?;
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || datagrams(&socket, &shared));
    }
    println!("{} is ready", shared.name);
    accept(&signal, &doors, &shared)?;
    drop(doors);
    drained(&shared);
    println!("{} ends", shared.name);
    Ok(())
}

type Door = fn(&TcpStream, &Shared) -> io::Result<()>;

/// Takes connections until the signal, and then those that have been waiting.
fn accept(signal: &SignalFd, doors: &[(TcpListener, Door)], shared: &Arc<Shared>) -> Result<()> {
    loop {
        let waits = doors.iter().map(|(listener, _)| listener.as_fd()).chain([signal.as_fd()]);
        let mut waits: Vec<_> = waits.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut waits, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        let ends = waits.last().is_some_and(|last| last.any() == Some(true));
        for (listener, door) in doors {
            while let Ok((stream, _)) = listener.accept() {
                begin(stream, *door, shared)?;
            }
        }
        if ends {
            return Ok(());
        }
    }
}

fn begin(stream: TcpStream, door: Door, shared: &Arc<Shared>) -> Result<()> {
    let shared = Arc::clone(shared);
    shared.open.fetch_add(1, Ordering::Relaxed);
    let serve = move || {
        // What a client does wrong or breaks off is seen by the client.
        let _ = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| door(&stream, &shared));
        shared.open.fetch_sub(1, Ordering::Relaxed);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(serve)?;
    Ok(())
}

fn drained(shared: &Shared) {
    let end = Instant::now() + DRAIN;
    while shared.open.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn answer(mut stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let client = plain(stream.peer_addr()?);
    let told = if shared.proxy { Some(proxy_header::read(&mut stream)?) } else { None };
    loop {
        let mut head = [0; Question::HEAD];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let question = Question::parse(head)?;
        let mut bytes = vec![0; question.length as usize];
        stream.read_exact(&mut bytes)?;
        wait(Duration::from_millis(question.delay.into()));
        tell(shared, client, told.clone()).write(&mut stream, &bytes)?;
    }
}

/// As long as the client has asked for.
fn wait(span: Duration) {
    let end = Instant::now() + span;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn datagrams(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; 65_535];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let mut bytes = &buffer[..length];
        let told = if shared.proxy { proxy_header::read(&mut bytes).ok() } else { None };
        let Some(bytes) = bytes.get(Question::HEAD..).filter(|bytes| bytes.len() <= LONGEST as usize) else {
            continue;
        };
        let mut reply = Vec::new();
        if tell(shared, plain(from), told).write(&mut reply, bytes).is_ok() {
            // A client that has gone is no reason to stop.
            let _ = socket.send_to(&reply, from);
        }
    }
}

fn tell(shared: &Shared, client: SocketAddr, told: Option<Told>) -> Answer {
    Answer { by: shared.name.clone(), client, told }
}

/// One request, then the end.
fn page(mut stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let client = plain(stream.peer_addr()?);
    let mut lines = BufReader::new(stream).take(16_384);
    let mut request = String::new();
    lines.read_line(&mut request)?;
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    match path {
        "/fail" => shared.healthy.store(false, Ordering::Relaxed),
        "/mend" => shared.healthy.store(true, Ordering::Relaxed),
        _ => {}
    }
    let good = path != "/health" || shared.healthy.load(Ordering::Relaxed);
    let status = if good { "200 OK" } else { "503 Service Unavailable" };
    let (name, body) = (&shared.name, format!("{} {client}\n", shared.name));
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nserver-name: {name}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes())
}

/// IPv4 clients of a socket for both families are told as such.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How long connections may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
