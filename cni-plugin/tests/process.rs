//! The program as a runtime sees it when no daemon runs: what it reads, what it prints, how it ends.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

struct Ended {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// The error object on stdout.
    fn error(&self) -> Value {
        assert!(!self.success, "{} {}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn plugin(variables: &[(&str, &str)]) -> Child {
    program(Path::new(env!("CARGO_BIN_EXE_netd-cni")), variables)
}

fn program(path: &Path, variables: &[(&str, &str)]) -> Child {
    Command::new(path)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits with stdin as it is: open, unless somebody has closed it.
fn end(mut child: Child) -> Ended {
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the plugin waits for something");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    };
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ended { success: status.success(), stdout, stderr }
}

fn call(variables: &[(&str, &str)], stdin: &str) -> Ended {
    let mut child = plugin(variables);
    // A refusal of the environment comes before stdin is read.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    end(child)
}

fn attachment<'a>(verb: &'a str, netns: &'a str) -> [(&'a str, &'a str); 4] {
    [("CNI_COMMAND", verb), ("CNI_CONTAINERID", "web"), ("CNI_NETNS", netns), ("CNI_IFNAME", "eth0")]
}

/// A configuration with nobody at its socket.
fn config(version: &str, folder: &Path) -> String {
    let (socket, spool) = (folder.join("netd.sock"), folder.join("spool"));
    json!({ "cniVersion": version, "name": "app", "type": "netd-cni", "socket": socket, "spool": spool })
        .to_string()
}

/// Some namespace file that is not this process's network: looked at, never entered.
const OTHER: &str = "/proc/self/ns/uts";

#[test]
fn version_and_about_leave_stdin_alone() {
    let versions = end(plugin(&[("CNI_COMMAND", "VERSION")]));
    assert!(versions.success);
    let said: Value = serde_json::from_str(&versions.stdout).unwrap();
    let all = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!((&said["cniVersion"], &said["supportedVersions"]), (&json!("1.1.0"), &all));

    let about = end(plugin(&[]));
    assert!(about.success && about.stdout.is_empty());
    assert!(about.stderr.starts_with("CNI netd-cni plugin v"), "{}", about.stderr);
    assert!(about.stderr.contains("0.4.0, 1.0.0"), "{}", about.stderr);
}

#[test]
fn refusals_are_error_objects_on_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let missing = call(&[("CNI_COMMAND", "ADD")], "").error();
    assert_eq!(missing["code"], 4);
    assert!(missing["msg"].as_str().unwrap().contains("[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"), "{missing}");

    assert_eq!(call(&attachment("ADD", OTHER), "{\"name\":").error()["code"], 6);
    assert_eq!(call(&attachment("ADD", OTHER), "").error()["code"], 6);
    let version = call(&attachment("ADD", OTHER), &config("3.0.0", folder.path())).error();
    assert_eq!((&version["code"], &version["cniVersion"]), (&json!(1), &json!("1.1.0")));
    let text = config("0.4.0", folder.path());
    let own = call(&attachment("ADD", "/proc/self/ns/net"), &text).error();
    assert_eq!((&own["code"], &own["cniVersion"]), (&json!(8), &json!("0.4.0")));
    let nowhere = call(&attachment("ADD", "/nonexistent"), &text).error();
    assert_eq!(nowhere["code"], 3);
    let check = call(&attachment("CHECK", OTHER), &config("0.3.1", folder.path())).error();
    assert_eq!(check["code"], 1);
    assert_eq!(call(&attachment("CHECK", OTHER), &text).error()["code"], 7, "no prevResult");
    assert_eq!(call(&[("CNI_COMMAND", "STATUS")], &config("1.0.0", folder.path())).error()["code"], 1);
    let collect = call(&[("CNI_COMMAND", "GC")], &config("1.1.0", folder.path())).error();
    assert_eq!(collect["code"], 7, "no list of attachments");
}

#[test]
fn input_that_cannot_be_read_or_has_no_end_is_an_error_object() {
    let unreadable = Command::new(env!("CARGO_BIN_EXE_netd-cni"))
        .env_clear()
        .envs(attachment("ADD", OTHER))
        .stdin(std::fs::File::open("/").unwrap())
        .output()
        .unwrap();
    let error: Value = serde_json::from_slice(&unreadable.stdout).unwrap();
    assert_eq!((unreadable.status.success(), &error["code"]), (false, &json!(5)), "a folder is no input");
    let endless = call(&attachment("ADD", OTHER), &"[".repeat(5 << 20)).error();
    assert_eq!(endless["code"], 6);
    let deep = call(&attachment("ADD", OTHER), &"[".repeat(100_000)).error();
    assert_eq!(deep["code"], 6, "nested without end");
}

#[test]
fn without_a_daemon_add_says_try_again_status_says_50_and_del_takes_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let text = config("1.1.0", folder.path());
    let added = call(&attachment("ADD", OTHER), &text).error();
    assert_eq!(added["code"], 11);
    assert!(added["details"].as_str().unwrap().contains("netd.sock"), "{added}");
    assert_eq!(call(&[("CNI_COMMAND", "STATUS")], &text).error()["code"], 50);
    for netns in ["/nonexistent", "", ""] {
        let left = call(&attachment("DEL", netns), &text);
        assert!(left.success && left.stdout.is_empty(), "{} {}", left.stdout, left.stderr);
    }
    assert_eq!(std::fs::read_dir(folder.path().join("spool")).unwrap().count(), 1, "one note, however often");

    std::fs::remove_dir_all(folder.path().join("spool")).unwrap();
    std::fs::write(folder.path().join("spool"), "").unwrap();
    assert_eq!(call(&attachment("DEL", ""), &text).error()["code"], 11, "nowhere to write it down");
}

#[test]
fn host_local_works_as_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host-local");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_netd-cni"), &path).unwrap();
    let about = end(program(&path, &[]));
    assert!(about.success && about.stderr.starts_with("CNI host-local plugin v1.9.0\n"), "{}", about.stderr);
    let config = json!({ "cniVersion": "1.0.0", "name": "app", "type": "macvlan", "ipam": {
        "type": "host-local", "subnet": "10.1.0.0/24", "dataDir": folder.path().join("data") } });
    let call = |verb: &str| {
        let mut child = program(&path, &attachment(verb, OTHER));
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        end(child)
    };
    let added = call("ADD");
    assert!(added.success && added.stderr.is_empty(), "{} {}", added.stdout, added.stderr);
    let result: Value = serde_json::from_str(&added.stdout).unwrap();
    assert_eq!(result["ips"], json!([{ "address": "10.1.0.2/24", "gateway": "10.1.0.1" }]));
    assert_eq!(call("ADD").error()["code"], 100, "once a container and device");
    let left = call("DEL");
    assert!(left.success && left.stdout.is_empty() && left.stderr.is_empty());
}
