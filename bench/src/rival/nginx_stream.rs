//! nginx as a stream proxy, one worker a processor.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::rival::{Contender, Doors, Protocol, program};
use crate::site::{Container, Node};
use crate::task::Server;

pub(crate) fn start(node: &Node, container: &Container, protocol: Protocol) -> Result<Contender> {
    program("nginx", "nginx-light")?;
    ensure!(
        Path::new(MODULE).exists(),
        "not measured: nginx has no stream module; install the package libnginx-mod-stream"
    );
    let doors = Doors::from(node.address, 23_000);
    let mut servers = String::new();
    for (door, port) in doors.of(protocol) {
        let how = match protocol {
            Protocol::Tcp => "backlog=4096",
            Protocol::Udp => "udp reuseport",
        };
        let _ = writeln!(servers, "server {{ listen {door} {how}; proxy_pass {}; }}", container.at(port));
    }
    let dir = format!("/run/lab/nginx-stream-{protocol:?}");
    fs::create_dir_all(&dir)?;
    let config = format!(
        "load_module {MODULE}; daemon off; worker_processes auto; pid {dir}/pid; error_log {dir}/log crit;
         worker_rlimit_nofile 20000; events {{ worker_connections 8192; }}
         stream {{ proxy_timeout 1h; {servers} }}"
    );
    fs::write(format!("{dir}/nginx.conf"), config)?;
    let server = Server::start(&node.host, &format!("nginx -e {dir}/log -c {dir}/nginx.conf"))?;
    Ok(Contender { name: "nginx stream", doors, relays: vec![server.pid()], servers: vec![server] })
}

const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
