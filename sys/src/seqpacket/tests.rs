use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

use super::*;

#[test]
fn a_message_arrives_whole_with_its_descriptors_in_order() {
    let (left, right) = Connection::pair().unwrap();
    let mut files: Vec<File> = (0..3u8)
        .map(|n| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[n]).unwrap();
            file
        })
        .collect();
    left.send(b"three", &files).unwrap();
    left.send(b"none", &[] as &[File]).unwrap();
    files.clear();

    let mut buffer = [0; 64];
    let received = right.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..received.length], b"three");
    let values: Vec<u8> = received
        .fds
        .into_iter()
        .map(|fd| {
            let mut file = File::from(fd);
            file.rewind().unwrap();
            let mut byte = [0];
            file.read_exact(&mut byte).unwrap();
            byte[0]
        })
        .collect();
    assert_eq!(values, [0, 1, 2]);

    let received = right.recv(&mut buffer).unwrap();
    assert_eq!((&buffer[..received.length], received.fds.len()), (&b"none"[..], 0));
    assert_eq!(right.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(left);
    assert_eq!(right.recv(&mut buffer).unwrap().length, 0);
}

#[test]
fn as_many_descriptors_as_the_kernel_carries_fit() {
    let (left, right) = Connection::pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    left.send(b"x", &vec![&file; MAX_FDS]).unwrap();
    assert_eq!(right.recv(&mut [0; 8]).unwrap().fds.len(), MAX_FDS);
    assert!(left.send(b"x", &vec![&file; MAX_FDS + 1]).is_err());
}

#[test]
fn descriptors_of_a_message_that_is_too_long_are_closed() {
    let (left, right) = Connection::pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    left.send(b"longer than the buffer", &[&writer]).unwrap();
    drop(writer);
    assert_eq!(right.recv(&mut [0; 4]).unwrap_err().kind(), ErrorKind::InvalidData);
    // Every copy of the write end is closed: the pipe is at its end.
    assert_eq!((&reader).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_new_listener_takes_the_path_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link.sock");
    let old = Listener::bind(&path).unwrap();
    let new = Listener::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let _client = Connection::connect(&path).unwrap();
    assert_eq!(old.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let accepted = new.accept().unwrap();
    assert_eq!(accepted.peer_user().unwrap(), nix::unistd::geteuid().as_raw());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn only_a_listening_seqpacket_socket_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link.sock");
    let listener = Listener::bind(&path).unwrap();
    let listener = Listener::inherited(listener.into()).unwrap();
    let client = Connection::connect(&path).unwrap();
    listener.accept().unwrap();
    assert!(Listener::inherited(client.0.into()).is_err());
    assert!(Listener::inherited(tempfile::tempfile().unwrap().into()).is_err());
    let stream = std::os::unix::net::UnixListener::bind(dir.path().join("stream")).unwrap();
    assert!(Listener::inherited(stream.into()).is_err());
}

#[test]
fn a_peer_that_does_not_read_blocks_nobody() {
    let (left, right) = Connection::pair().unwrap();
    let chunk = vec![7; 64 << 10];
    let sent = (0..1000).take_while(|_| left.send(&chunk, &[] as &[File]).is_ok()).count();
    assert!((2..1000).contains(&sent), "{sent} messages of 64 KiB fitted");
    assert_eq!(left.send(&chunk, &[] as &[File]).unwrap_err().kind(), ErrorKind::WouldBlock);
    right.recv(&mut vec![0; 64 << 10]).unwrap();
    left.send(&chunk, &[] as &[File]).unwrap();
}
