//! `--store etcd://...` and the section `[cluster]`: where etcd is, and how other nodes reach this one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::store::{EtcdSettings, HostPort, Identity, Login, Tls};

const VXLAN_PORT: u16 = 4789;
const MESH_PORT: u16 = 6383;

/// What makes this node one of several.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub etcd: EtcdSettings,
    /// Where other nodes reach this one.
    pub advertise: IpAddr,
    /// Where its tunnels end, if that is another address.
    pub vtep: Option<IpAddr>,
    pub vxlan_port: u16,
    /// Where its data plane takes connections that other nodes pass on, TCP and UDP.
    pub mesh_port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct ClusterSection {
    endpoints: Vec<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    lease_seconds: Option<u64>,
    timeout_ms: Option<u64>,
    advertise_addr: Option<IpAddr>,
    vtep_addr: Option<IpAddr>,
    vxlan_port: Option<u16>,
    mesh_port: Option<u16>,
}

/// What was said about the store, and where.
#[derive(Debug, Default)]
pub(super) struct StoreChoice {
    pub flag: Option<String>,
    pub file: Option<String>,
}

impl ClusterSection {
    /// None: this node is alone, with a store of its own.
    pub(super) fn checked(
        self,
        store: &StoreChoice,
        advertise_flag: Option<IpAddr>,
    ) -> Result<Option<Cluster>> {
        let Some((endpoints, encrypted)) = self.endpoints(store)? else {
            ensure!(
                advertise_flag.is_none(),
                "--advertise-addr is how other nodes reach this one: it goes with --store etcd://HOST:PORT"
            );
            return Ok(None);
        };
        let given = advertise_flag.or(self.advertise_addr);
        let (vxlan_port, mesh_port) =
            (self.vxlan_port.unwrap_or(VXLAN_PORT), self.mesh_port.unwrap_or(MESH_PORT));
        for (name, port) in [("vxlan-port", vxlan_port), ("mesh-port", mesh_port)] {
            ensure!(port != 0, "cluster.{name} is 0: it has to be the same, from 1 to 65535, on every node");
        }
        ensure!(
            vxlan_port != mesh_port,
            "cluster.vxlan-port and cluster.mesh-port are both {mesh_port}: each takes a UDP port of its own"
        );
        if let Some(vtep) = self.vtep_addr {
            check_address("cluster.vtep-addr", vtep)?;
        }
        let advertise = match given {
            Some(address) => {
                check_address("cluster.advertise-addr", address)?;
                address
            }
            None => address_towards(&endpoints)?,
        };
        let vtep = self.vtep_addr;
        let etcd = EtcdSettings {
            tls: self.tls(encrypted)?,
            login: self.login()?,
            lease: self.lease()?,
            timeout: self.timeout()?,
            endpoints,
        };
        Ok(Some(Cluster { etcd, advertise, vtep, vxlan_port, mesh_port }))
    }

    /// Whether, and whom, to ask; and whether by TLS.
    fn endpoints(&self, store: &StoreChoice) -> Result<Option<(Vec<HostPort>, bool)>> {
        // The command line replaces what the file says, also where the file says it in another place.
        let (chosen, in_file) = match (&store.flag, &store.file) {
            (Some(flag), _) => (Some(flag), false),
            (None, file) => (file.as_ref(), true),
        };
        match chosen.map(String::as_str) {
            Some("redb") if in_file && !self.endpoints.is_empty() => bail!(
                "store is `redb` and cluster.endpoints are given: leave one of them out (etcd holds what nodes share, \
                 redb what is this node's own)"
            ),
            Some("redb") => Ok(None),
            None if self.endpoints.is_empty() => Ok(None),
            None => listed(&self.endpoints).map(Some),
            Some(_) if in_file && !self.endpoints.is_empty() => {
                bail!("store and cluster.endpoints both say where etcd is: leave one of them out")
            }
            Some(url) => {
                let (encrypted, places) = match (url.strip_prefix("etcd://"), url.strip_prefix("etcds://")) {
                    (Some(places), _) => (false, places),
                    (_, Some(places)) => (true, places),
                    _ => bail!(
                        "store `{url}` is not known: use `redb`, or `etcd://HOST:PORT[,HOST:PORT...]` (`etcds://` with TLS)"
                    ),
                };
                let places = places.strip_suffix('/').unwrap_or(places).split(',');
                let places: Result<Vec<HostPort>, _> = places.map(str::parse).collect();
                Ok(Some((places.with_context(|| format!("store `{url}`"))?, encrypted)))
            }
        }
    }

    fn tls(&self, encrypted: bool) -> Result<Option<Tls>> {
        let named = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        if !encrypted {
            let given: Vec<_> =
                named.iter().filter(|(_, path)| path.is_some()).map(|(name, _)| *name).collect();
            ensure!(
                given.is_empty(),
                "cluster.{} is given, but etcd is asked without TLS: write etcds:// (or https:// in cluster.endpoints)",
                given.join(", cluster.")
            );
            return Ok(None);
        }
        for (name, path) in named {
            if let Some(path) = path {
                check_file(name, path)?;
            }
        }
        let ca = self.ca.clone().context(
            "etcd is asked by TLS, and cluster.ca does not say who has signed its certificate: give the PEM file",
        )?;
        let identity = match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => {
                Some(Identity { certificate: certificate.clone(), key: key.clone() })
            }
            (None, None) => None,
            _ => {
                bail!("cluster.cert and cluster.key go together: a certificate and its private key, both PEM")
            }
        };
        Ok(Some(Tls { ca, identity }))
    }

    fn login(&self) -> Result<Option<Login>> {
        let login = match (&self.user, &self.password_file) {
            (Some(user), Some(file)) => Login { user: user.clone(), password_file: file.clone() },
            (None, None) => return Ok(None),
            _ => bail!(
                "cluster.user and cluster.password-file go together: the file's first line is the password"
            ),
        };
        ensure!(!login.user.is_empty(), "cluster.user is empty");
        let path = &login.password_file;
        login.password().with_context(|| format!("cannot read cluster.password-file {}", path.display()))?;
        Ok(Some(login))
    }

    fn lease(&self) -> Result<Duration> {
        let seconds = self.lease_seconds.unwrap_or(5);
        ensure!(
            (2..=600).contains(&seconds),
            "cluster.lease-seconds is {seconds}: from 2 (the least etcd grants) to 600; so long after a node's death \
             the others count on it"
        );
        Ok(Duration::from_secs(seconds))
    }

    fn timeout(&self) -> Result<Duration> {
        let milliseconds = self.timeout_ms.unwrap_or(2000);
        ensure!(
            (100..=30_000).contains(&milliseconds),
            "cluster.timeout-ms is {milliseconds}: from 100 to 30000"
        );
        Ok(Duration::from_millis(milliseconds))
    }
}

/// `http://HOST:PORT` or `https://HOST:PORT`, all alike.
fn listed(endpoints: &[String]) -> Result<(Vec<HostPort>, bool)> {
    let mut places = Vec::new();
    let mut schemes = Vec::new();
    for url in endpoints {
        let (scheme, place) = url.split_once("://").unwrap_or(("", url));
        ensure!(
            matches!(scheme, "http" | "https"),
            "cluster.endpoints has {url:?}: write http://HOST:PORT, or https://HOST:PORT for TLS"
        );
        let place = place.strip_suffix('/').unwrap_or(place);
        places.push(place.parse().with_context(|| format!("cluster.endpoints has {url:?}"))?);
        schemes.push(scheme);
    }
    let encrypted = schemes.contains(&"https");
    ensure!(
        !encrypted || !schemes.contains(&"http"),
        "cluster.endpoints mixes http:// and https://: all of them or none by TLS"
    );
    Ok((places, encrypted))
}

fn check_file(name: &str, path: &std::path::Path) -> Result<()> {
    let text = crate::store::read_small(path);
    let text = text.with_context(|| format!("cannot read cluster.{name} {}", path.display()))?;
    let marked = text.windows(11).any(|window| window == b"-----BEGIN ");
    ensure!(marked, "cluster.{name} {} is not PEM: no `-----BEGIN` line", path.display());
    Ok(())
}

/// One that another machine can send to.
fn check_address(name: &str, address: IpAddr) -> Result<()> {
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    let local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    ensure!(
        !address.is_unspecified()
            && !address.is_loopback()
            && !address.is_multicast()
            && !mapped
            && !broadcast
            && !local,
        "{name} is {address}: it has to be an address of this host that the other nodes can send to"
    );
    Ok(())
}

/// From where etcd is reached, there the other nodes can be reached, too, as a rule. Nothing is sent.
fn address_towards(endpoints: &[HostPort]) -> Result<IpAddr> {
    let own = |address: SocketAddr| -> Option<IpAddr> {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(address).ok()?;
        socket.local_addr().ok().map(|local| local.ip())
    };
    let addresses = endpoints
        .iter()
        .filter_map(|place| (place.host.as_str(), place.port).to_socket_addrs().ok())
        .flatten()
        .filter_map(own);
    let mut found = None;
    for address in addresses {
        if check_address("cluster.advertise-addr", address).is_ok() {
            return Ok(address);
        }
        found = Some(address);
    }
    match found {
        Some(address) => bail!(
            "etcd is reached from {address}, which other nodes cannot reach: say by --advertise-addr (or \
             cluster.advertise-addr) which address of this host they can"
        ),
        None => bail!(
            "no route to etcd tells which address of this host other nodes can reach: give --advertise-addr (or \
             cluster.advertise-addr)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn section(text: &str) -> ClusterSection {
        toml::from_str(text).expect("a section")
    }

    fn checked(text: &str, store: Option<&str>) -> Result<Option<Cluster>> {
        let choice = StoreChoice { flag: store.map(Into::into), file: None };
        section(&format!("advertise-addr = '10.0.0.7'\n{text}")).checked(&choice, None)
    }

    fn refusal(text: &str, store: Option<&str>) -> String {
        format!("{:#}", checked(text, store).expect_err(text))
    }

    fn pem() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"-----BEGIN CERTIFICATE-----\n").expect("it can be written");
        file
    }

    #[test]
    fn a_node_is_alone_unless_it_is_told_of_etcd() {
        assert!(checked("", None).expect("sound").is_none());
        assert!(checked("", Some("redb")).expect("sound").is_none());
        assert!(checked("endpoints = ['http://a:1']", Some("redb")).expect("the flag wins").is_none());
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let cluster = checked("", Some("etcd://a:1,[fd00::1]:2")).expect("sound").expect("a cluster");
        assert_eq!(cluster.etcd.names(), "a:1, [fd00::1]:2");
        assert_eq!((cluster.vxlan_port, cluster.mesh_port), (4789, 6383));
        assert_eq!((cluster.etcd.lease.as_secs(), cluster.etcd.timeout.as_millis()), (5, 2000));
        assert_eq!(cluster.advertise.to_string(), "10.0.0.7");
        assert!(cluster.etcd.tls.is_none() && cluster.etcd.login.is_none() && cluster.vtep.is_none());
    }

    #[test]
    fn the_flag_replaces_the_endpoints_of_the_file() {
        let cluster = checked("endpoints = ['http://a:1']", Some("etcd://b:2")).expect("sound").expect("one");
        assert_eq!(cluster.etcd.names(), "b:2");
        let listed = checked("endpoints = ['http://a:1', 'http://b:2/']", None).expect("sound").expect("one");
        assert_eq!(listed.etcd.names(), "a:1, b:2");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, store, part) in [
            ("", "mysql://a:1", "mysql://a:1"),
            ("", "etcd://", "\"\""),
            ("", "etcd://a", "\"a\""),
            ("", "etcd://a:1,", "\"\""),
            ("", "etcds://a:1", "cluster.ca"),
            ("lease-seconds = 1", "etcd://a:1", "lease-seconds is 1"),
            ("timeout-ms = 5", "etcd://a:1", "timeout-ms is 5"),
            ("vxlan-port = 0", "etcd://a:1", "cluster.vxlan-port is 0"),
            ("mesh-port = 4789", "etcd://a:1", "both 4789"),
            ("user = 'x'", "etcd://a:1", "password-file"),
            ("user = 'x'\npassword-file = '/nonexistent'", "etcd://a:1", "/nonexistent"),
            ("vtep-addr = '127.0.0.1'", "etcd://a:1", "vtep-addr is 127.0.0.1"),
            ("ca = '/x'", "etcd://a:1", "etcds://"),
            ("ca = '/nonexistent'", "etcds://a:1", "cluster.ca /nonexistent"),
        ] {
            let error = refusal(text, Some(store));
            assert!(error.contains(part), "{text} {store}: {error}");
        }
        for (text, part) in [
            ("endpoints = ['a:1']", "http://HOST:PORT"),
            ("endpoints = ['http://a:1', 'https://b:1']", "mixes"),
            ("endpoints = ['http://a']", "\"http://a\""),
        ] {
            let error = refusal(text, None);
            assert!(error.contains(part), "{text}: {error}");
        }
        let unknown = toml::from_str::<ClusterSection>("leese-seconds = 3").expect_err("unknown").to_string();
        assert!(unknown.contains("leese-seconds"), "{unknown}");
    }

    #[test]
    fn two_places_in_the_file_that_name_a_store_are_refused() {
        for store in ["redb", "etcd://b:1"] {
            let choice = StoreChoice { flag: None, file: Some(store.into()) };
            let error = section("endpoints = ['http://a:1']").checked(&choice, None).expect_err(store);
            assert!(error.to_string().contains("leave one of them out"), "{error}");
        }
        let error = section("").checked(&StoreChoice::default(), Some(IpAddr::from([10, 0, 0, 1])));
        assert!(error.expect_err("alone").to_string().contains("--store etcd://"));
    }

    #[test]
    fn an_address_that_nobody_else_can_reach_is_no_address_to_advertise() {
        let choice = StoreChoice { flag: Some("etcd://127.0.0.1:2379".into()), file: None };
        let error = section("").checked(&choice, None).expect_err("loopback").to_string();
        assert!(error.contains("127.0.0.1") && error.contains("--advertise-addr"), "{error}");
        for address in
            ["0.0.0.0", "::1", "224.0.0.1", "ff02::1", "fe80::1", "255.255.255.255", "::ffff:10.0.0.1"]
        {
            let error =
                section("").checked(&choice, Some(address.parse().expect("an address"))).expect_err(address);
            assert!(error.to_string().contains(address), "{error}");
        }
    }

    #[test]
    fn certificates_are_looked_at_when_the_daemon_starts() {
        let file = pem();
        let path = file.path().display();
        let all = format!("ca = '{path}'\ncert = '{path}'\nkey = '{path}'");
        let cluster = checked(&all, Some("etcds://a:1")).expect("sound").expect("a cluster");
        assert!(cluster.etcd.tls.is_some_and(|tls| tls.identity.is_some()));
        let half = refusal(&format!("ca = '{path}'\ncert = '{path}'"), Some("etcds://a:1"));
        assert!(half.contains("go together"), "{half}");
        std::fs::write(file.path(), "hello").expect("it can be written");
        assert!(refusal(&format!("ca = '{path}'"), Some("etcds://a:1")).contains("not PEM"));
    }
}
