//! Datagrams between sandboxes and the services of their networks, on one host and over nodes: of every size, in both
//! families, from sockets whose port is fixed, which hear several services at once, relayed and straight.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::backend::vip;
use netd_tests::traffic::{echo, ping};
use netd_tests::{Cluster, Daemon, Lab, Place, Setup, eventually, scenario};

const PATIENCE: Duration = Duration::from_secs(10);
/// What one packet takes, what makes some fragments, and what makes many.
const SIZES: [usize; 4] = [1, 1200, 8192, 60_000];
const PORTS: [u16; 2] = [7000, 7001];
/// The last one's clients go straight to its backend.
const SERVICES: [(&str, &str); 3] = [("web", ""), ("names", ""), ("swift", "--east-west connect")];

fn create(netd: &Daemon) -> Result<()> {
    for (service, flags) in SERVICES {
        netd.netd(&format!("service create {service} --network app {flags}"))?;
    }
    Ok(())
}

/// A sandbox that sends back what it gets on both ports.
fn server(netd: &Daemon, service: &str) -> Result<Place> {
    let server = netd.create(&format!("{service}1"), &format!("--network app --service {service}"))?;
    for port in PORTS {
        echo(server.udp((Ipv6Addr::UNSPECIFIED, port))?);
    }
    Ok(server)
}

/// Every port of the services, by family.
fn doors(netd: &Daemon) -> Result<[Vec<SocketAddr>; 2]> {
    let mut doors = [vec![], vec![]];
    for (service, _) in SERVICES {
        let vips: [IpAddr; 2] =
            [vip::<Ipv4Addr>(netd, service)?.into(), vip::<Ipv6Addr>(netd, service)?.into()];
        for (doors, vip) in doors.iter_mut().zip(vips) {
            doors.extend(PORTS.map(|port| SocketAddr::new(vip, port)));
        }
    }
    Ok(doors)
}

fn bound(client: &Place, family: &[SocketAddr], port: u16) -> Result<UdpSocket> {
    let is_v4 = family.first().context("a service")?.is_ipv4();
    let any: IpAddr = if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    client.udp((any, port))
}

/// Each answers the one socket under the address and port that were asked, whatever the size.
fn are_served(client: &Place, doors: &[Vec<SocketAddr>; 2]) -> Result<()> {
    for family in doors {
        let socket = bound(client, family, 5353)?;
        for to in family {
            for size in SIZES {
                ping(&socket, *to, 7, size).with_context(|| format!("{size} bytes to {to}"))?;
            }
        }
        all_at_once(&socket, family)?;
        let connected = bound(client, family, 5354)?;
        for to in family {
            connected.connect(to)?;
            connected.set_read_timeout(Some(PATIENCE))?;
            for size in SIZES {
                let (sent, mut back) = (vec![b'd'; size], vec![0; 65_535]);
                connected.send(&sent)?;
                let got = connected.recv(&mut back).with_context(|| format!("{size} bytes from {to}"))?;
                ensure!(back[..got] == sent, "{got} of {size} bytes came back from {to}");
            }
        }
    }
    Ok(())
}

/// Questions to all of them before the first answer is taken: none is taken for another's.
fn all_at_once(socket: &UdpSocket, doors: &[SocketAddr]) -> Result<()> {
    for (number, to) in doors.iter().enumerate() {
        socket.send_to(&vec![number as u8; 8192], to)?;
    }
    let mut back = vec![0; 65_535];
    let mut heard = vec![false; doors.len()];
    for _ in doors {
        let (got, from) = socket.recv_from(&mut back).context("an answer of each")?;
        let number = usize::from(back[0]);
        ensure!(
            got == 8192 && doors.get(number) == Some(&from),
            "{from} answers for {:?}",
            doors.get(number)
        );
        heard[number] = true;
    }
    ensure!(heard.iter().all(|heard| *heard), "{heard:?}");
    Ok(())
}

#[test]
fn one_socket_hears_every_port_of_several_services() {
    scenario(|lab| one_host(lab, "sk_lookup"));
}

#[test]
fn one_socket_hears_every_port_without_bpf() {
    scenario(|lab| one_host(lab, "tproxy"));
}

fn one_host(lab: &Lab, way: &str) -> Result<()> {
    let host = lab.host("n1")?;
    if way == "tproxy" {
        host.filter_bridges(false)?;
    }
    let config = format!("[publish]\nsteer = \"{way}\"\n");
    let netd = host.daemon_with(Setup { config, ..Setup::default() })?;
    netd.netd("network create app --ipv6")?;
    create(&netd)?;
    let _servers = SERVICES.iter().map(|(service, _)| server(&netd, service)).collect::<Result<Vec<_>>>()?;
    let client = netd.create("client", "--network app")?;
    let doors = doors(&netd)?;
    are_served(&client, &doors)?;
    are_served(&host, &doors).context("the host itself")
}

#[test]
fn one_socket_hears_services_of_its_own_node_and_of_another() {
    scenario(|lab| {
        let cluster = Cluster::start(lab, 2)?;
        let [here, there] = &cluster.nodes[..] else { unreachable!("two") };
        here.netd("network create app -d overlay --ipv6")?;
        create(here)?;
        cluster.everywhere(PATIENCE, "the services are known", |node| {
            SERVICES.iter().try_for_each(|(service, _)| node.inspect("service", service).map(drop))
        })?;
        let _servers = [server(here, "web")?, server(there, "names")?, server(there, "swift")?];
        let client = here.create("client", "--network app")?;
        let doors = doors(here)?;
        for to in doors.iter().flatten() {
            let socket = bound(&client, &[*to], 0)?;
            eventually(PATIENCE, &format!("{to} leads to its backend"), || ping(&socket, *to, 3, 600))?;
        }
        are_served(&client, &doors)?;
        are_served(&here.host, &doors).context("a program of the node")
    });
}
