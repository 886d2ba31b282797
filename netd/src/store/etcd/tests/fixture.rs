//! A real etcd of a test's own: in a network namespace that only the test's thread is in, its files in a directory
//! that goes with it.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netd_sys::netlink::{Rtnl, link};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::super::{Etcd, EtcdSettings, HostPort, Wake};
use crate::store::{Batch, Entry, KeyChange, Watch};

/// For whatever is to become true.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the test on a thread in a network namespace of its own, which the threads that it starts are in too.
pub(super) fn apart(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; tests run as root");
            loopback(true);
            test();
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Without it nothing reaches anything in the namespace, and nobody is told so: a network that is cut.
pub(super) fn loopback(up: bool) {
    let op = if up { link::up("lo") } else { link::down("lo") };
    Rtnl::open().and_then(|mut rtnl| rtnl.transact(vec![op])).expect("lo");
}

pub(super) struct Server {
    child: Child,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    scheme: &'static str,
}

impl Server {
    pub(super) fn start() -> Self {
        Self::start_with(2379, "http", Vec::new())
    }

    pub(super) fn start_with(port: u16, scheme: &'static str, options: Vec<String>) -> Self {
        let directory = TempDir::new().expect("a directory");
        let child = spawn(directory.path(), port, scheme, &options);
        let server = Self { child, directory, port, options, scheme };
        server.begins();
        server
    }

    pub(super) fn place(&self) -> HostPort {
        HostPort { host: "127.0.0.1".into(), port: self.port }
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    pub(super) fn start_again(&mut self) {
        self.child = spawn(self.directory.path(), self.port, self.scheme, &self.options);
        self.wait();
    }

    /// The same data behind another port.
    pub(super) fn of(mut other: Self, port: u16) -> Self {
        other.kill();
        let directory = std::mem::replace(&mut other.directory, TempDir::new().expect("a directory"));
        let child = spawn(directory.path(), port, other.scheme, &[]);
        let server = Self { child, directory, port, options: Vec::new(), scheme: other.scheme };
        server.wait();
        server
    }

    /// It holds its connections and answers nothing.
    pub(super) fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// It listens before it has written down that it is a member of anything. Killed in between it finds, whenever it is
    /// started again, a member of nothing, and never serves.
    fn begins(&self) {
        eventually("etcd serves", || self.log().contains("serving client traffic"));
    }

    fn wait(&self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        eventually("etcd listens", || TcpStream::connect(address).is_ok());
    }

    /// What an administrator would type.
    pub(super) fn ctl(&self, args: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args([
                &format!("--endpoints={}", self.place().uri(self.scheme == "https")),
                "--command-timeout=20s",
            ])
            .args(args)
            .output()
            .expect("etcdctl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "etcdctl {args:?}: {text}{}{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        text
    }

    /// What it has said since its last start.
    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(directory: &Path, port: u16, scheme: &str, options: &[String]) -> Child {
    let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port + 1));
    // Should the test die, so does etcd.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "etcd", "--log-level=info", "--logger=zap"])
        .arg(format!("--name=m{port}"))
        .arg(format!("--data-dir={}", directory.join("data").display()))
        .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
        .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
        .arg(format!("--initial-cluster=m{port}={peer}"))
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.join("log")).expect("a log file"))
        .spawn()
        .expect("etcd starts; scripts/setup.sh installs it")
}

pub(super) fn settings(endpoints: Vec<HostPort>) -> EtcdSettings {
    EtcdSettings {
        endpoints,
        tls: None,
        login: None,
        lease: Duration::from_secs(3),
        timeout: Duration::from_secs(2),
    }
}

/// How often the store has woken its owner.
#[derive(Clone, Default)]
pub(super) struct Woken(Arc<AtomicUsize>);

impl Woken {
    pub(super) fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn open(settings: EtcdSettings, directory: &Path) -> (Etcd, Woken) {
    let woken = Woken::default();
    let count = Arc::clone(&woken.0);
    let wake: Wake = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        true
    });
    (Etcd::open(settings, directory, wake).expect("it opens without etcd too"), woken)
}

/// A reader's belief, from its batches so far.
#[derive(Default)]
pub(super) struct Reader {
    pub entries: std::collections::BTreeMap<String, Vec<u8>>,
    pub batches: Vec<Batch>,
}

impl Reader {
    pub(super) fn read(&mut self, watch: &Watch) {
        while let Some(batch) = watch.try_next().expect("the watch is open") {
            for change in &batch.changes {
                match change {
                    KeyChange::Put(Entry { key, value, .. }) => {
                        self.entries.insert(key.to_string(), value.to_vec());
                    }
                    KeyChange::Deleted { key } => drop(self.entries.remove(&**key)),
                }
            }
            self.batches.push(batch);
        }
    }

    pub(super) fn keys(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    /// Reads until it believes in exactly these keys.
    pub(super) fn read_until(&mut self, watch: &Watch, keys: &[&str]) {
        eventually(&format!("the watch leads to {keys:?}"), || {
            self.read(watch);
            self.keys() == keys
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "it is what polls with a deadline")]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A certificate for 127.0.0.1, its key, and who has signed it; as an administrator makes them.
pub(super) struct Certificates {
    pub directory: TempDir,
}

impl Certificates {
    pub(super) fn make() -> Self {
        let directory = TempDir::new().expect("a directory");
        let names = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
        std::fs::write(directory.path().join("names"), names).expect("it can be written");
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let openssl = |args: &[&[&str]]| {
            let output = Command::new("openssl").args(args.concat()).current_dir(directory.path()).output();
            let output = output.expect("openssl runs; scripts/setup.sh installs it");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        for ca in ["ca", "stranger"] {
            let (key, out) = (format!("{ca}.key"), format!("{ca}.pem"));
            openssl(&[&["req", "-x509", "-subj", "/CN=ca", "-keyout", &key, "-out", &out], &new_key]);
        }
        openssl(&[&["req", "-subj", "/CN=etcd", "-keyout", "own.key", "-out", "own.csr"], &new_key]);
        let signed =
            ["x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(&[&signed, &["-extfile", "names", "-out", "own.pem"]]);
        Self { directory }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// For etcd, which asks its clients for theirs.
    pub(super) fn options(&self) -> Vec<String> {
        let file = |option: &str, name: &str| format!("--{option}={}", self.path(name).display());
        let files =
            [file("cert-file", "own.pem"), file("key-file", "own.key"), file("trusted-ca-file", "ca.pem")];
        [&files[..], &["--client-cert-auth".to_owned()]].concat()
    }
}

/// Three members that make one cluster.
pub(super) fn three() -> Vec<Server> {
    let ports = [2379, 2479, 2579];
    let peers: Vec<_> = ports.iter().map(|port| format!("m{port}=http://127.0.0.1:{}", port + 1)).collect();
    let options = vec![format!("--initial-cluster={}", peers.join(","))];
    let member = |port: u16| {
        let directory = TempDir::new().expect("a directory");
        let child = spawn(directory.path(), port, "http", &options);
        Server { child, directory, port, options: options.clone(), scheme: "http" }
    };
    let members: Vec<_> = ports.into_iter().map(member).collect();
    members.iter().for_each(Server::begins);
    members
}
