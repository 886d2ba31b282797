//! The programs behind every contender: iperf3, nginx with a small static answer, and the UDP servers of `load::udp`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use netd_tests::{Place, eventually};

use crate::load::udp;
use crate::task::Server;

/// Where the programs listen in the container.
pub(crate) const BULK: u16 = 5201;
pub(crate) const HTTP: u16 = 80;
/// nginx, which wants a PROXY header there.
pub(crate) const HTTP_PROXY: u16 = 81;
pub(crate) const ECHO: u16 = 7007;
pub(crate) const SINK: u16 = 7009;

pub(crate) struct Programs {
    _servers: Vec<Server>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Programs {
    /// iperf3 and nginx.
    pub(crate) fn tcp(place: &Place) -> Result<Self> {
        let dir = format!("/run/lab/www-{}", place.name);
        fs::create_dir_all(&dir).with_context(|| format!("make {dir}"))?;
        fs::write(format!("{dir}/index.html"), [b'x'; PAGE])?;
        let config = format!("{dir}/nginx.conf");
        fs::write(&config, nginx(&dir))?;
        let servers = vec![
            Server::start(place, &format!("iperf3 -s -p {BULK}"))?,
            Server::start(place, &format!("nginx -e /dev/null -c {config}"))?,
        ];
        for port in [BULK, HTTP] {
            eventually(Duration::from_secs(10), &format!("port {port} of {} answers", place.name), || {
                Ok(place.connect((Ipv4Addr::LOCALHOST, port))?)
            })
            .with_context(|| servers.iter().map(Server::output).collect::<String>())?;
        }
        Ok(Self { _servers: servers, stop: Arc::default(), threads: Vec::new() })
    }

    /// The echo and the sink.
    pub(crate) fn udp(place: &Place) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let roles: [(u16, Role); 2] = [(ECHO, udp::echo), (SINK, udp::sink)];
        let mut threads = Vec::new();
        for (port, role) in roles {
            let socket = place.udp((Ipv4Addr::UNSPECIFIED, port))?;
            let (name, stop) = (place.name.clone(), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                role(&socket, &stop).with_context(|| format!("serve port {port}/udp in {name}"))
            }));
        }
        Ok(Self { _servers: Vec::new(), stop, threads })
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if let Ok(Err(error)) = thread.join() {
                eprintln!("  a server of the container failed: {error:#}");
            }
        }
    }
}

/// One process: no master that would have to be ended apart from its worker. Idle connections are left alone.
fn nginx(dir: &str) -> String {
    format!(
        "daemon off; master_process off; pid {dir}/pid; error_log /dev/null; worker_rlimit_nofile 20000;
         events {{ worker_connections 16384; }}
         http {{
           access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_header_timeout 1h;
           client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
           uwsgi_temp_path {dir}; scgi_temp_path {dir};
           server {{ listen 80 backlog=4096; listen {HTTP_PROXY} backlog=4096 proxy_protocol; root {dir}; }}
         }}"
    )
}

type Role = fn(&UdpSocket, &AtomicBool) -> io::Result<()>;

/// Bytes of the answer.
const PAGE: usize = 612;
