//! The way from node to node: who is heard there, and what is told of it. What goes over it is the matter of services.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use netd_tests::{Cluster, Place, eventually, scenario};

const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 6383;

/// What the mesh port answers to bytes that are no header.
fn nonsense(from: &Place, to: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = from.connect(to)?;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[test]
fn nodes_hear_each_other_and_nobody_else() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let stranger = lab.host("stranger")?;
        let [first, second] = [&cluster.nodes[0], &cluster.nodes[1]];
        let to = SocketAddr::from((first.host.v4, PORT));
        eventually(PATIENCE, "node2 is heard, and told that it makes no sense", || {
            let answer = nonsense(&second.host, to)?;
            ensure!(answer == [8], "{answer:?}");
            Ok(())
        })?;
        let dropped =
            stranger.enter(|| std::net::TcpStream::connect_timeout(&to, Duration::from_millis(700)))?;
        ensure!(dropped.is_err(), "a stranger has come through");

        let metrics = first.http("GET", "/metrics", "")?.body;
        let line = "netd_hops_failed_total{node=\"node2\",way=\"from\",reason=\"malformed\"}";
        ensure!(metrics.contains(line), "{metrics}");

        first.kill()?;
        ensure!(nonsense(&second.host, to)? == [8], "while netd is away");
        first.start()?;
        ensure!(nonsense(&second.host, to)? == [8], "and when it is back");
        first.kill_dataplane()?;
        eventually(PATIENCE, "a new data plane takes over", || {
            ensure!(nonsense(&second.host, to)? == [8]);
            Ok(())
        })
    });
}
