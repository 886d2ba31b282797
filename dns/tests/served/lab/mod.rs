//! What the tests of the served protocol share: a server on ephemeral loopback ports, `dig` as the user, and upstream
//! servers that misbehave on request.

pub(crate) mod fake;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use netd_dns::table::{Change, Forward, Name, SocketUse, View, ViewZone};
use netd_dns::{Config, Server, ViewSocket};

/// How long anything that should happen at once may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A server with one view, `v`, over the zone `z`, whose suffix is `shop`.
pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

pub(crate) fn name(name: &str, addresses: &[&str]) -> Name {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().expect("an address")).collect();
    Name { name: name.into(), primary_for: addresses.clone(), addresses, ..Name::default() }
}

pub(crate) fn put(zone: &str, entry: Name) -> Change {
    Change::PutName { zone: zone.into(), name: entry }
}

pub(crate) fn view(forward: Forward) -> View {
    View {
        id: "v".into(),
        zones: vec![ViewZone { zone: "z".into(), suffix: "shop".into() }],
        names: Vec::new(),
        forward,
        single_labels_are_local: false,
    }
}

/// A UDP and a TCP socket on one free port of 127.0.0.1.
pub(crate) fn ports(view: &str) -> (SocketAddr, Vec<ViewSocket>) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("bound");
        let Ok(udp) = UdpSocket::bind(address) else { continue };
        tcp.set_nonblocking(true).expect("nonblocking");
        udp.set_nonblocking(true).expect("nonblocking");
        let sockets =
            vec![(view.into(), SocketUse::Udp, udp.into()), (view.into(), SocketUse::Tcp, tcp.into())];
        return (address, sockets);
    }
    panic!("no port is free for both protocols");
}

impl Lab {
    pub(crate) fn start(config: Config, view: View, changes: Vec<Change>) -> Self {
        let server = Server::start(config).expect("the server starts");
        let (address, sockets) = ports(&view.id);
        let lab = Self { server, address };
        lab.apply([vec![Change::PutView(view)], changes].concat(), sockets);
        lab
    }

    pub(crate) fn serving(names: Vec<Name>) -> Self {
        let names = names.into_iter().map(|entry| put("z", entry)).collect();
        Self::start(Config::default(), view(Forward::Never), names)
    }

    pub(crate) fn forwarding(servers: &[SocketAddr]) -> Self {
        let servers = servers.to_vec();
        Self::start(Config::default(), view(Forward::Host), vec![Change::PutHostServers { servers }])
    }

    /// Applies and waits until it is served.
    pub(crate) fn apply(&self, changes: Vec<Change>, sockets: Vec<ViewSocket>) {
        let (done, applied) = channel();
        self.server
            .apply(changes, sockets, move |outcome| done.send(outcome).expect("the test waits"))
            .expect("the server runs");
        applied.recv_timeout(SOON).expect("changes are applied at once").expect("all sockets are served");
    }

    pub(crate) fn dig(&self, arguments: &str) -> Dig {
        dig(self.address, arguments)
    }
}

/// What `dig` printed.
pub(crate) struct Dig {
    pub(crate) status: String,
    pub(crate) flags: String,
    /// Name, type and data of each answer.
    pub(crate) answers: Vec<String>,
    pub(crate) whole: String,
}

pub(crate) fn dig(server: SocketAddr, arguments: &str) -> Dig {
    let output = Command::new("dig")
        .args([format!("@{}", server.ip()), "-p".into(), server.port().to_string()])
        .args(["+tries=1", "+time=5"])
        .args(arguments.split_whitespace())
        .output()
        .expect("dig is installed (Debian: bind9-dnsutils)");
    let whole = String::from_utf8(output.stdout).expect("text");
    let field = |from: &str, to: &str| {
        let rest = whole.split(from).nth(1).unwrap_or_default();
        rest.split(to).next().unwrap_or_default().to_owned()
    };
    let answers = field(";; ANSWER SECTION:\n", "\n\n");
    let answers = answers
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, _, _, rtype, data @ ..] = words.as_slice() else { panic!("not a record: {line}") };
            format!("{name} {rtype} {}", data.join(" "))
        })
        .collect();
    Dig { status: field("status: ", ","), flags: field("flags: ", ";"), answers, whole }
}
