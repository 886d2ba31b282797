//! The client against a socket that plays the daemon, well and badly.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use super::*;
use crate::error::Code;
use crate::verb::Nothing;
use crate::{events, network, sandbox, system};

/// Answers the first connection with `answer`, once the request is there, and gives the request back.
fn daemon(answer: String) -> (tempfile::TempDir, PathBuf, thread::JoinHandle<String>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("netd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        while !complete(&request) {
            let n = stream.read(&mut chunk).unwrap();
            assert!(n > 0, "the client left in mid-request");
            request.extend_from_slice(&chunk[..n]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (directory, socket, served)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

#[test]
fn a_call_sends_the_verb_and_reads_the_answer() {
    let (_directory, socket, served) = daemon(answer("200 OK", r#"{"filter": "info"}"#));
    let client = blocking::Client::new(socket).unwrap();
    let filter = system::LogFilter { filter: "debug".into() };
    let answer = client.call::<system::SetLog>(&Nothing {}, &filter).unwrap();
    assert_eq!(answer.filter, "info");
    let request = served.join().unwrap();
    assert!(request.starts_with("PUT /v1/log HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"filter\":\"debug\"}"), "{request}");
}

#[test]
fn an_answer_may_be_empty_or_text() {
    let (_directory, socket, served) = daemon("HTTP/1.1 204 No Content\r\n\r\n".into());
    let params = sandbox::RemoveParams { name: "web".parse().unwrap(), force: false };
    blocking::Client::new(socket).unwrap().call::<sandbox::Remove>(&params, &Nothing {}).unwrap();
    assert!(served.join().unwrap().starts_with("DELETE /v1/sandboxes/web?force=false HTTP/1.1\r\n"));

    let (_directory, socket, _) = daemon(answer("200 OK", "up 1\n"));
    let client = blocking::Client::new(socket).unwrap();
    assert_eq!(client.call::<system::Metrics>(&Nothing {}, &Nothing {}).unwrap(), "up 1\n");
}

#[test]
fn a_problem_keeps_its_code_and_words() {
    let problem = ApiError::not_found("no network").remedy("make it").problem();
    let json = serde_json::to_string(&problem).unwrap();
    let (_directory, socket, _) = daemon(answer("404 Not Found", &json));
    let params = network::NetworkParams { name: "x".parse().unwrap() };
    let error =
        blocking::Client::new(socket).unwrap().call::<network::Inspect>(&params, &Nothing {}).unwrap_err();
    assert_eq!(error.api().map(|e| e.code), Some(Code::NotFound));
    assert_eq!(error.to_string(), "no network; make it");
}

#[test]
fn who_does_not_speak_netd_is_said_to() {
    let (_directory, socket, _) = daemon(answer("502 Bad Gateway", ""));
    let client = blocking::Client::new(socket).unwrap();
    let error = client.call::<system::Status>(&Nothing {}, &Nothing {}).unwrap_err();
    assert!(error.to_string().contains("502 Bad Gateway"), "{error}");
    let (_directory, socket, _) = daemon(answer("200 OK", "{}"));
    let client = blocking::Client::new(socket).unwrap();
    let error = client.call::<system::Status>(&Nothing {}, &Nothing {}).unwrap_err();
    assert!(error.to_string().contains("missing field `version`"), "{error}");
}

#[test]
fn a_daemon_that_is_not_there_is_told_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("netd.sock");
    let call = || {
        let client = blocking::Client::new(&socket).unwrap();
        client.call::<system::Healthz>(&Nothing {}, &Nothing {}).unwrap_err().to_string()
    };
    let shown = socket.display().to_string();
    assert_eq!(call(), format!("no daemon at {shown}: the socket does not exist; is `netd run` running?"));
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(call(), format!("no daemon at {shown}: nobody listens on the socket; is `netd run` running?"));
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    assert_eq!(absence(&denied), "permission denied; be root or in the group netd");
}

#[test]
fn a_daemon_that_says_nothing_does_not_hold_the_caller() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("netd.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let client = blocking::Client::new(&socket).unwrap().timeout(Duration::from_millis(50));
    let error = client.call::<system::Healthz>(&Nothing {}, &Nothing {}).unwrap_err();
    assert!(matches!(error, ClientError::Timeout(_)), "{error}");
}

#[test]
fn events_come_line_by_line() {
    let pieces = [
        "\n",
        r#"{"time":"2026-01-01T00:00:00Z","type":"network""#,
        concat!(r#","action":"create","id":"1","name":"a"}"#, "\n", r#"{"time":"2026-01-01T00:"#),
        concat!(r#"00:01Z","type":"network","action":"destroy","id":"1","name":"a"}"#, "\n\n"),
        "",
    ];
    let chunks: String = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
    let (_directory, socket, served) =
        daemon(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
    let client = blocking::Client::new(socket).unwrap();
    let params = events::FollowParams { filter: vec!["type=network".parse().unwrap()], ..Default::default() };
    let actions: Vec<String> =
        client.follow::<events::Follow>(&params).unwrap().map(|event| event.unwrap().action).collect();
    assert_eq!(actions, ["create", "destroy"]);
    assert!(served.join().unwrap().starts_with("GET /v1/events?filter=type%3Dnetwork HTTP/1.1\r\n"));
}
