//! How a scenario is shut in: the test starts itself again under fresh network, mount, process and host-name
//! namespaces, with an empty /run. Whatever it makes there (links, namespaces, rules, processes, files) ends with
//! that process, even if it is killed. The outer half compares the machine before and after.
//!
//! Inside, one switch joins the hosts of the scenario: 192.0.2.0/24 and 2001:db8:2::/64. The lab's own namespace is
//! the router behind it, with an address of "the Internet": 198.51.100.1 and 2001:db8:51::1.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::mount::{MsFlags, mount};

use crate::daemon::binary_dir;
use crate::host::Host;
use crate::place::Place;
use crate::report::Transcript;
use crate::runtimes::cgroup;
use crate::snapshot::{Machine, alone};

/// The body of a `#[test]`. It runs shut in; an error or a panic fails the test and prints the lab.
///
/// The test's name is read off the closure's type, so that it can be asked for again by the inner run.
pub fn scenario<F>(body: F)
where
    F: FnOnce(&Lab) -> Result<()> + Send + 'static,
{
    let outcome = if inside() { within(SCENARIO, body) } else { outside(&test_name::<F>()) };
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

/// For programs that use the lab (demo, bench): starts the program again shut in, with the same arguments, and gives its exit
/// code; once inside, runs `body`.
pub fn shut_in(body: impl FnOnce(&Lab) -> Result<()>) -> Result<i32> {
    if inside() {
        let lab = Lab::new()?;
        let done = body(&lab).and_then(|()| lab.finish());
        if done.is_err() {
            eprintln!("{}", lab.picture());
        }
        return done.map(|()| 0);
    }
    let before = Machine::look()?;
    let args: Vec<_> = std::env::args().skip(1).collect();
    let id = new_id();
    let status = enclosed(&id, &args)?.status().context("start unshare")?;
    cgroup::sweep(&id)?;
    before.compare(&Machine::look()?)?;
    Ok(status.code().unwrap_or(1))
}

/// Whether this process is the one that is shut in.
pub fn inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// What tells this lab from others that run now, for a mark on the little that a lab makes outside its namespaces.
pub(crate) fn id() -> Option<String> {
    std::env::var(MARK).ok()
}

fn new_id() -> String {
    static LABS: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed))
}

/// `crate::path::to_test::{{closure}}` as libtest knows it: without the crate and the closure.
fn test_name<F>() -> String {
    let name = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    name.split_once("::").map_or(name, |(_, path)| path).to_owned()
}

fn outside(test: &str) -> Result<()> {
    let before = Machine::look()?;
    let args = ["--exact", test, "--nocapture", "--include-ignored", "--test-threads=1"].map(String::from);
    let id = new_id();
    let output = enclosed(&id, &args)?.stdin(Stdio::null()).output().context("start unshare")?;
    cgroup::sweep(&id)?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    ensure!(said.contains("1 passed"), "no test is called {test}: {said}");
    before.compare(&Machine::look()?)
}

/// This program again, in namespaces of its own. `sh` is there to reap orphans as a real init does; `setpriv` and
/// `--kill-child` take everything down when the outer test is killed.
fn enclosed(id: &str, args: &[String]) -> Result<Command> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the lab needs root for its namespaces: use `make test` or sudo"
    );
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("setpriv");
    command
        .args(
            "--pdeathsig KILL unshare --net --mount --pid --uts --fork --kill-child=KILL --mount-proc"
                .split(' '),
        )
        .args(["--propagation", "private", "sh", "-c", "\"$@\" & wait $!", "sh"])
        .arg(std::env::current_exe().context("find this program")?)
        .args(args)
        .env(MARK, id)
        .env("RUST_BACKTRACE", "0")
        .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", binary_dir()?.display()))
        // What a person has set up for real use does not reach the scenarios.
        .env_remove("NETD_SOCKET");
    Ok(command)
}

fn within<F>(deadline: Duration, body: F) -> Result<()>
where
    F: FnOnce(&Lab) -> Result<()> + Send + 'static,
{
    let lab = Arc::new(Lab::new()?);
    let (told, outcome) = mpsc::channel();
    let theirs = Arc::clone(&lab);
    std::thread::spawn(move || {
        let done = catch_unwind(AssertUnwindSafe(|| body(&theirs).and_then(|()| theirs.finish())));
        told.send(done.unwrap_or_else(|_| Err(anyhow!("the scenario panicked, see above"))))
    });
    let done = outcome
        .recv_timeout(deadline)
        .unwrap_or_else(|_| Err(anyhow!("the scenario took longer than {deadline:?}")));
    if done.is_err() {
        eprintln!("{}", lab.picture());
    }
    done
}

pub struct Lab {
    /// The router: the lab's own namespace.
    pub router: Place,
    hosts: Mutex<Vec<Host>>,
}

impl Lab {
    fn new() -> Result<Self> {
        let transcript = Arc::new(Transcript::new());
        let router = Place::new("router", None, transcript);
        // It may be a link into /run, which is about to be covered.
        let resolv = fs::canonicalize("/etc/resolv.conf").context("find the machine's resolv.conf")?;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .context("cover /run")?;
        for dir in ["/run/netns", "/run/lab", "/run/lock"] {
            fs::create_dir_all(dir).with_context(|| format!("make {dir}"))?;
        }
        resolve_by("127.0.0.1")?;
        if !resolv.exists() {
            fs::create_dir_all(resolv.parent().context("resolv.conf is a file")?)?;
            fs::write(&resolv, "")?;
        }
        mount(Some(RESOLV_CONF), &resolv, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context("cover resolv.conf")?;
        let script = "link set lo up
            link add sw type bridge
            addr add 192.0.2.254/24 dev sw
            addr add 2001:db8:2::fe/64 dev sw nodad
            addr add 198.51.100.1/32 dev lo
            addr add 2001:db8:51::1/128 dev lo
            link set sw up";
        router.run_with("ip -batch -", script.as_bytes(), SCENARIO)?.success()?;
        for (path, value) in [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")] {
            fs::write(Path::new("/proc/sys").join(path), value).with_context(|| format!("set {path}"))?;
        }
        Ok(Self { router, hosts: Mutex::default() })
    }

    /// A new machine on the switch, with a default route to the router.
    pub fn host(&self, name: &str) -> Result<Host> {
        let mut hosts = self.hosts.lock().expect("no holder panics");
        let number = u8::try_from(hosts.len() + 1).context("too many hosts")?;
        let host = Host::join(&self.router, name, number)?;
        hosts.push(host.clone());
        Ok(host)
    }

    pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    pub const INTERNET6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1);

    /// Ends every daemon as a user would, and checks that each host is again as it was.
    fn finish(&self) -> Result<()> {
        let hosts = self.hosts.lock().expect("no holder panics");
        hosts.iter().try_for_each(Host::finish)?;
        alone()
    }

    /// Commands, hosts and logs, for a person to read.
    pub fn picture(&self) -> String {
        // A failure while the hosts are locked must still be told.
        let hosts = self.hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut places: Vec<_> = hosts.iter().map(|host| host.place.clone()).collect();
        places.extend(hosts.iter().flat_map(Host::sandbox_places));
        self.router.transcript.tell(&places)
    }
}

/// Makes `server` the only resolver of this lab's machines (they share one mount namespace).
pub fn resolve_by(server: &str) -> Result<()> {
    fs::write(RESOLV_CONF, format!("nameserver {server}\n")).context("write the lab's resolv.conf")
}

pub(crate) const RESOLV_CONF: &str = "/run/lab/resolv.conf";
const MARK: &str = "NETD_LAB";
const SCENARIO: Duration = Duration::from_secs(120);
