//! A backend of a service: a sandbox with `lab_echo` in it, on port 7000 (TCP and UDP) and, for people and health checks,
//! 80. It answers with the sandbox's name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command::Process;
use crate::daemon::Daemon;
use crate::eventually::eventually;
use crate::load::talk::datagram;
use crate::load::wire::Question;
use crate::load::{Answer, Talk};
use crate::place::{PATIENCE, Place};

pub struct Backend {
    pub name: String,
    /// The inside of its sandbox.
    pub place: Place,
    netd: Daemon,
    program: Process,
}

impl Backend {
    /// Makes the sandbox with these flags and starts the program in it.
    pub fn start(netd: &Daemon, name: &str, flags: &str) -> Result<Self> {
        Self::with(netd, name, flags, "")
    }

    /// The same with more flags of `lab_echo`.
    pub fn with(netd: &Daemon, name: &str, flags: &str, more: &str) -> Result<Self> {
        let place = netd.create(name, flags)?;
        let program = Self::program(netd, name, more)?;
        Ok(Self { name: name.into(), place, netd: netd.clone(), program })
    }

    fn program(netd: &Daemon, name: &str, more: &str) -> Result<Process> {
        let program =
            netd.exec(name, &format!("lab_echo --name {name} --tcp 7000 --udp 7000 --http 80 {more}"))?;
        program.says("is ready")?;
        Ok(program)
    }

    /// The program dies on the spot; the sandbox stays.
    pub fn kill(&self) -> Result<()> {
        self.program.signal(Signal::SIGKILL)?;
        self.program.wait(PATIENCE).map(drop)
    }

    pub fn freeze(&self) -> Result<()> {
        self.program.signal(Signal::SIGSTOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.program.signal(Signal::SIGCONT)
    }

    /// After it was killed.
    pub fn again(&mut self) -> Result<()> {
        self.program = Self::program(&self.netd, &self.name, "")?;
        Ok(())
    }

    /// `/fail` or `/mend`: what its health check finds from now on.
    pub fn switch(&self, path: &str) -> Result<()> {
        let to = SocketAddr::from(([127, 0, 0, 1], 80));
        self.place.enter(|| crate::load::talk::fetch(to, path, PATIENCE))??;
        Ok(())
    }

    /// As an operator replaces it: no new connections, the old ones finish, the program ends, the sandbox goes.
    pub fn retire(self, service: &str) -> Result<()> {
        self.netd.netd(&format!("service drain {service} {}", self.name))?;
        eventually(PATIENCE * 2, &format!("{} has no connection left", self.name), || {
            let open = endpoint(&self.netd, service, &self.name)?["ActiveConnections"].clone();
            ensure!(open == 0, "{open} are open");
            Ok(())
        })?;
        self.program.signal(Signal::SIGTERM)?;
        ensure!(self.program.wait(Duration::from_secs(15))? == 0, "it ends well: {}", self.program.output());
        self.netd.netd(&format!("sandbox rm {}", self.name)).map(drop)
    }

    pub fn remove(self) -> Result<()> {
        drop(self.program);
        self.netd.netd(&format!("sandbox rm -f {}", self.name)).map(drop)
    }
}

/// What `service inspect` says of one endpoint, asked for by its sandbox's name.
pub fn endpoint(netd: &Daemon, service: &str, sandbox: &str) -> Result<Value> {
    let inspected = netd.inspect("service", service)?;
    let all = inspected["Endpoints"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|one| one["Sandbox"] == sandbox);
    found.with_context(|| format!("no endpoint {sandbox} in {inspected}"))
}

/// Waits until an endpoint is in this state.
pub fn becomes(netd: &Daemon, service: &str, sandbox: &str, state: &str) -> Result<()> {
    eventually(PATIENCE * 2, &format!("{sandbox} becomes {state}"), || {
        let now = endpoint(netd, service, sandbox)?;
        ensure!(now["State"] == state, "{now}");
        Ok(())
    })
}

/// The VIP of a service: `VIP` or `VIP6`.
pub fn vip<T: std::str::FromStr>(netd: &Daemon, service: &str) -> Result<T> {
    let inspected = netd.inspect("service", service)?;
    ["VIP", "VIP6"]
        .iter()
        .find_map(|field| inspected[*field].as_str()?.split('/').next()?.parse().ok())
        .with_context(|| format!("no such VIP in {inspected}"))
}

/// One exchange on a new connection.
pub fn ask(from: &Place, to: impl Into<SocketAddr>) -> Result<Answer> {
    let to = to.into();
    let asked = from.enter(|| Talk::open(to, None, PATIENCE)?.say_and_close(17, 3000))?;
    asked.with_context(|| format!("ask {to} from {}", from.name))
}

/// A connection that stays.
pub fn talk(from: &Place, to: impl Into<SocketAddr>) -> Result<Talk> {
    let to = to.into();
    let opened = from.enter(|| Talk::open(to, None, PATIENCE))?;
    opened.with_context(|| format!("talk to {to} from {}", from.name))
}

/// One exchange by datagrams, tried until it succeeds: the first may get lost while a neighbour's address is found.
pub fn echoes(from: &Place, to: impl Into<SocketAddr>) -> Result<()> {
    let to = to.into();
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = from.udp((any, 0))?;
    socket.connect(to)?;
    eventually(PATIENCE * 2, &format!("{to}/udp answers {}", from.name), || {
        datagram(&socket, 17, 600, Duration::from_secs(1)).map(drop).map_err(Into::into)
    })
}

/// The same on a socket that is not connected, and so hears whoever writes to it: the answer has to come from where it was
/// asked for.
pub fn echoes_unconnected(from: &Place, to: impl Into<SocketAddr>) -> Result<()> {
    let to = to.into();
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = from.udp((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let question = Question { seed: 17, length: 600, delay: 0 };
    let mut buffer = vec![0; 65_535];
    eventually(PATIENCE * 2, &format!("{to}/udp answers {}, not connected", from.name), || {
        socket.send_to(&question.bytes(), to)?;
        let (got, by) = socket.recv_from(&mut buffer)?;
        let mut rest = &buffer[..got];
        Answer::read(&mut rest)?;
        ensure!(by == to && question.matches(rest), "{got} bytes from {by}");
        Ok(())
    })
}
