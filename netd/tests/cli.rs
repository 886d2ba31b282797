//! The command line as a script sees it, against a socket that plays the daemon: what goes to stdout, what to stderr,
//! and which exit code comes back.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use netd_api::ApiError;

/// Serves canned networks until the test ends.
struct Daemon {
    directory: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("netd.sock")).unwrap();
        // Ends with the process: it holds nothing but its socket.
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| serve(stream).unwrap_or_default());
        });
        Self { directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("netd.sock")
    }

    fn netd(&self, arguments: &[&str]) -> Output {
        netd(&self.socket(), arguments)
    }
}

fn serve(mut stream: UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    reader.take(length.unwrap_or(0)).read_to_end(&mut Vec::new())?;
    let (status, body) = answer(head.lines().next().unwrap_or_default());
    write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn answer(request: &str) -> (u16, String) {
    match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["GET", "/v1/networks"] => (200, format!("[{},{}]", network("app"), network("db"))),
        ["GET", "/v1/networks/app"] => (200, network("app")),
        ["DELETE", "/v1/networks/app" | "/v1/networks/db"] => (204, String::new()),
        ["POST", "/v1/networks"] => {
            let error =
                ApiError::conflict("network with name app\nalready exists").remedy("choose another name");
            (409, serde_json::to_string(&error.problem()).unwrap())
        }
        _ => (404, serde_json::to_string(&ApiError::not_found("there is no such thing").problem()).unwrap()),
    }
}

fn network(name: &str) -> String {
    format!(
        r#"{{"Name":"{name}","Id":"{}","Created":"2026-01-01T00:00:00Z","Scope":"local","Driver":"bridge",
        "EnableIPv4":true,"EnableIPv6":false,"IPAM":{{"Driver":"default","Config":[{{"Subnet":"10.0.0.0/24",
        "Gateway":"10.0.0.1"}}]}},"Internal":false,"Containers":{{}},"Options":{{}},"Labels":{{}}}}"#,
        "0123456789abcdef".repeat(4)
    )
}

fn netd(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netd"));
    command.env("NETD_SOCKET", socket).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn a_table_goes_to_stdout_and_ids_alone_on_demand() {
    let daemon = Daemon::start();
    let output = daemon.netd(&["network", "ls"]);
    assert_eq!(
        text(&output.stdout),
        "NETWORK ID    NAME  DRIVER  SCOPE  SUBNETS\n\
         0123456789ab  app   bridge  local  10.0.0.0/24\n\
         0123456789ab  db    bridge  local  10.0.0.0/24\n"
    );
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert_eq!(text(&daemon.netd(&["network", "ls", "-q"]).stdout), "0123456789ab\n0123456789ab\n");
}

#[test]
fn of_several_names_the_good_ones_are_done_and_the_bad_ones_told() {
    let daemon = Daemon::start();
    let output = daemon.netd(&["network", "rm", "app", "nope", "db"]);
    assert_eq!(text(&output.stdout), "app\ndb\n");
    assert_eq!(text(&output.stderr), "netd: remove the network nope: there is no such thing\n");
    assert_eq!(output.status.code(), Some(1));

    let output = daemon.netd(&["network", "inspect", "nope", "app"]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((shown[0]["Name"].as_str(), shown[1].as_str()), (Some("app"), None));
    assert_eq!(shown[0]["IPAM"]["Config"][0]["Subnet"], "10.0.0.0/24");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_failure_is_one_line_with_deed_cause_and_remedy() {
    let daemon = Daemon::start();
    let output = daemon.netd(&["network", "create", "app"]);
    assert_eq!(
        text(&output.stderr),
        "netd: create the network app: network with name app already exists; choose another name\n"
    );
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));

    let missing = daemon.directory.path().join("missing.sock");
    let output = netd(&missing, &["status"]);
    assert_eq!(
        text(&output.stderr),
        format!(
            "netd: show the status: no daemon at {}: the socket does not exist; is `netd run` running?\n",
            missing.display()
        )
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let daemon = Daemon::start();
    let wrong: [&[&str]; 6] = [
        &[],
        &["nonsense"],
        &["network", "rm"],
        &["network", "create", "a/b"],
        &["network", "create", "app", "--gateway", "10.0.0.1"],
        &["sandbox", "create", "web", "--network", "host", "--network", "app"],
    ];
    for arguments in wrong {
        let output = daemon.netd(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in
        [&["--help"] as &[&str], &["--version"], &["sandbox", "run", "--help"], &["completion", "bash"]]
    {
        let output = daemon.netd(arguments);
        assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(0), true), "{arguments:?}");
        assert!(output.stdout.starts_with(b"netd") || output.stdout.len() > 200, "{arguments:?}");
    }
}
