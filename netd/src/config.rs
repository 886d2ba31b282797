//! The daemon's settings: what was written (file, then flags) becomes one checked [`Config`]. Networks, sandboxes and
//! services are never settings: they come by the API and live in the store.

mod args;
mod cluster;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::ipam::Pool;
use crate::model::ClientAddress;
pub(crate) use args::{LogFormat, RunArgs};
pub(crate) use cluster::Cluster;
use cluster::{ClusterSection, StoreChoice};

/// Where the file is looked for when `--config` does not name one; it may be absent there.
pub(crate) const DEFAULT_FILE: &str = "/etc/netd/netd.toml";

/// Everything checked, nothing optional that has a default.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub node: String,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub netns_dir: PathBuf,
    pub socket: PathBuf,
    pub metrics: Option<SocketAddr>,
    pub log: String,
    pub log_format: LogFormat,
    pub pools: Vec<Pool>,
    pub mtu: u32,
    pub default_subnet: Option<IpNetwork>,
    pub publish_addresses: Vec<IpAddr>,
    /// Of ports that are published from now on.
    pub client_address: ClientAddress,
    pub steer: SteerBy,
    /// Programs whose sockets on a port do not keep it from being steered.
    pub reservation_holders: Vec<String>,
    pub resolv_conf: PathBuf,
    pub dns_servers: Vec<IpAddr>,
    pub dataplane: DataPlane,
    /// Where Docker finds its plugin, if it is to find one.
    pub docker: Option<PathBuf>,
    /// Set: the store has a part that many nodes share.
    pub cluster: Option<Cluster>,
}

/// How published ports are led past the sockets that a runtime keeps on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SteerBy {
    /// `sk_lookup` where the kernel and this build have it, else tproxy.
    #[default]
    Auto,
    SkLookup,
    Tproxy,
}

#[derive(Clone, Debug)]
pub(crate) struct DataPlane {
    pub user: Option<String>,
    pub workers: usize,
    pub spin: Duration,
    pub max_connections: u32,
    pub drain: Duration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    name: Option<String>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    netns_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    store: Option<String>,
    metrics_addr: Option<SocketAddr>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    network: NetworkSection,
    publish: PublishSection,
    dns: DnsSection,
    dataplane: DataPlaneSection,
    docker: DockerSection,
    cluster: ClusterSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct NetworkSection {
    pools: Vec<Pool>,
    mtu: Option<u32>,
    default_subnet: Option<IpNetwork>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct PublishSection {
    addresses: Vec<IpAddr>,
    steer: SteerBy,
    client_address: ClientAddress,
    reservation_holders: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct DnsSection {
    resolv_conf: Option<PathBuf>,
    servers: Vec<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct DataPlaneSection {
    user: Option<String>,
    workers: Option<usize>,
    spin_us: Option<u64>,
    max_connections: Option<u32>,
    drain_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct DockerSection {
    plugin: bool,
    socket: Option<PathBuf>,
}

impl Config {
    /// Reads the file and lays the flags over it.
    pub(crate) fn load(args: &RunArgs) -> Result<Self> {
        let file = match &args.config {
            Some(path) => File::read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => File::read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let run_dir_given = args.run_dir.is_some() || file.run_dir.is_some();
        let run_dir = args.run_dir.clone().or(file.run_dir).unwrap_or_else(|| "/run/netd".into());
        let netns_default = if run_dir_given { run_dir.join("netns") } else { "/run/netns".into() };
        let store = StoreChoice { flag: args.store.clone(), file: file.store };
        let cluster = file.cluster.checked(&store, args.advertise_addr)?;
        Ok(Self {
            node: args.name.clone().or(file.name).map_or_else(hostname, Ok)?,
            state_dir: args.state_dir.clone().or(file.state_dir).unwrap_or_else(|| "/var/lib/netd".into()),
            netns_dir: args.netns_dir.clone().or(file.netns_dir).unwrap_or(netns_default),
            socket: args.socket.clone().or(file.socket).unwrap_or_else(|| run_dir.join("netd.sock")),
            run_dir,
            metrics: args.metrics_addr.or(file.metrics_addr),
            log: file.log.unwrap_or_else(|| "info".into()),
            log_format: args.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
            pools: file.network.pools,
            mtu: checked_mtu(file.network.mtu)?,
            default_subnet: file.network.default_subnet,
            publish_addresses: file.publish.addresses,
            client_address: file.publish.client_address,
            steer: file.publish.steer,
            reservation_holders: checked_holders(file.publish.reservation_holders)?,
            resolv_conf: file.dns.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".into()),
            dns_servers: file.dns.servers,
            dataplane: file.dataplane.checked()?,
            docker: file.docker.checked()?,
            cluster,
        })
    }
}

impl Config {
    /// Relay threads of the data plane: as many sockets has a published port.
    pub(crate) fn workers(&self) -> usize {
        match self.dataplane.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }
}

impl File {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the config file {}", path.display()))?;
        toml::from_str(&text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            anyhow::anyhow!("{}, line {line}: {}", path.display(), error.message().replace('\n', " "))
        })
    }
}

impl DataPlaneSection {
    fn checked(self) -> Result<DataPlane> {
        let workers = self.workers.unwrap_or(0);
        if workers > 64 {
            bail!("dataplane.workers is {workers}: at most 64; 0 takes one for each processor");
        }
        let spin = self.spin_us.unwrap_or(50);
        if spin > 1000 {
            bail!("dataplane.spin-us is {spin}: at most 1000 (microseconds); 0 never spins");
        }
        Ok(DataPlane {
            user: self.user,
            workers,
            spin: Duration::from_micros(spin),
            max_connections: self.max_connections.unwrap_or(8_000),
            drain: Duration::from_secs(self.drain_seconds.unwrap_or(10)),
        })
    }
}

impl DockerSection {
    /// Docker looks for `<driver>.sock` in the directories of its plugins.
    fn checked(self) -> Result<Option<PathBuf>> {
        let socket = self.socket.unwrap_or_else(|| "/run/docker/plugins/netd.sock".into());
        if !socket.is_absolute() || socket.extension().is_none_or(|extension| extension != "sock") {
            bail!(
                "docker.socket is {}: Docker finds a plugin by an absolute path that ends with DRIVER.sock, as \
                 /run/docker/plugins/netd.sock",
                socket.display()
            );
        }
        Ok(self.plugin.then_some(socket))
    }
}

/// podman and its monitor; nerdctl, whose reservation is a sleep; the forwarder of rootless ports.
const RESERVATION_HOLDERS: [&str; 5] = ["conmon", "podman", "nerdctl", "sleep", "rootlessport"];

fn checked_holders(given: Option<Vec<String>>) -> Result<Vec<String>> {
    let Some(given) = given else { return Ok(RESERVATION_HOLDERS.map(str::to_owned).to_vec()) };
    match given.iter().find(|name| name.is_empty() || name.len() > 15) {
        Some(name) => bail!(
            "publish.reservation-holders has {name:?}: write what `ps -o comm` shows, from 1 to 15 characters"
        ),
        None => Ok(given),
    }
}

fn checked_mtu(mtu: Option<u32>) -> Result<u32> {
    match mtu {
        None => Ok(1500),
        Some(mtu) if (1280..=65_535).contains(&mtu) => Ok(mtu),
        Some(mtu) => bail!("network.mtu is {mtu}: it has to be from 1280 (IPv6's least) to 65535"),
    }
}

fn hostname() -> Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host's name")?;
    name.into_string().map_err(|name| anyhow::anyhow!("the host's name {name:?} is not UTF-8: give --name"))
}
