//! The data plane's process as its control plane sees it: the real program, its confinement, its signals.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use netd_sys::process::PidFd;
use netd_sys::seqpacket::{Connection, Listener};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);

struct DataPlane {
    child: Child,
    handle: PidFd,
    dir: TempDir,
}

impl DataPlane {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("empty");
        fs::create_dir(&root).unwrap();
        let listener = Listener::bind(&dir.path().join("link")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_netd"))
            .args(["dataplane", "--drain-seconds=1", "--log=off", "--root"])
            .arg(root)
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { handle: PidFd::open(child.id()).unwrap(), child, dir }
    }

    fn connect(&self) -> Peer {
        Peer(Connection::connect(&self.dir.path().join("link")).unwrap())
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }

    /// A line of its status, without the name and with single spaces.
    fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn ended(&mut self) -> ExitStatus {
        assert!(readable(&self.handle), "the data plane does not end");
        self.child.wait().unwrap()
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Peer(Connection);

impl Peer {
    fn greet(&self) -> Value {
        self.tell(&json!([{"type": "hello", "protocol": 1, "build": "test"}]), &[]);
        self.hear()[0].take()
    }

    fn tell(&self, messages: &Value, fds: &[OwnedFd]) {
        self.0.send(messages.to_string().as_bytes(), fds).unwrap();
    }

    fn hear(&self) -> Value {
        serde_json::from_slice(&self.receive()).unwrap()
    }

    fn receive(&self) -> Vec<u8> {
        assert!(readable(&self.0), "the data plane does not answer");
        let mut buffer = vec![0; 1 << 20];
        let length = self.0.recv(&mut buffer).unwrap().length;
        buffer.truncate(length);
        buffer
    }
}

fn readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()).unwrap() > 0
}

#[test]
fn it_has_next_to_no_privilege_left_when_it_answers() {
    let plane = DataPlane::start();
    let greeting = plane.connect().greet();
    assert_eq!((&greeting["type"], &greeting["revision"]), (&json!("hello"), &json!(0)));
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        let user = plane.status("Uid");
        assert!(!user.split(' ').any(|uid| uid == "0"), "it runs as {user}");
        assert_eq!(plane.status("Groups"), "");
        assert_eq!(plane.status("CapBnd"), "0000000000000000");
        assert!(plane.proc("root").read_link().unwrap().ends_with("empty"));
    }
    // CAP_NET_RAW, for the mark on answers of steered UDP ports; nothing that a program it became would inherit.
    let own = if is_root { "0000000000002000" } else { "0000000000000000" };
    for (set, left) in
        [("CapInh", "0000000000000000"), ("CapPrm", own), ("CapEff", own), ("CapAmb", "0000000000000000")]
    {
        assert_eq!(plane.status(set), left, "{set}");
    }
    assert_eq!(plane.status("NoNewPrivs"), "1");
    for thread in fs::read_dir(plane.proc("task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    }
}

#[test]
fn it_outlives_its_control_plane_and_a_terminals_signals() {
    let plane = DataPlane::start();
    let first = plane.connect();
    first.greet();
    first.tell(
        &json!([{"type": "begin", "revision": 9, "full": true}, {"type": "commit", "revision": 9}]),
        &[],
    );
    assert_eq!(first.hear(), json!([{"type": "applied", "revision": 9, "error": null}]));
    drop(first);
    plane.handle.signal(Signal::SIGINT).unwrap();
    plane.handle.signal(Signal::SIGHUP).unwrap();
    assert_eq!(plane.connect().greet()["revision"], json!(9));
}

#[test]
fn the_newest_control_plane_rules() {
    let plane = DataPlane::start();
    let old = plane.connect();
    old.greet();
    let new = plane.connect();
    new.greet();
    assert!(old.receive().is_empty(), "the older link is closed");
    new.tell(&json!([{"type": "stats", "id": 3}]), &[]);
    assert_eq!(new.hear()[0]["id"], json!(3));
}

#[test]
fn another_protocol_is_answered_and_parted_from() {
    let plane = DataPlane::start();
    let peer = plane.connect();
    peer.tell(&json!([{"type": "hello", "protocol": 999, "build": "future"}]), &[]);
    assert_eq!(peer.hear()[0]["protocol"], json!(1));
    assert!(peer.receive().is_empty());
    plane.connect().greet();
}

#[test]
fn sigterm_and_stop_end_it() {
    let mut plane = DataPlane::start();
    plane.connect().greet();
    plane.handle.signal(Signal::SIGTERM).unwrap();
    assert!(plane.ended().success());

    let mut plane = DataPlane::start();
    let peer = plane.connect();
    peer.greet();
    peer.tell(&json!([{"type": "stop"}]), &[]);
    assert!(plane.ended().success());
}

#[test]
fn standard_input_has_to_be_a_listening_socket() {
    let output = Command::new(env!("CARGO_BIN_EXE_netd"))
        .arg("dataplane")
        .stdin(File::open("/dev/null").unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("--socket"), "{text}");
}
