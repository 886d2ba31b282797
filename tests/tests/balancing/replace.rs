//! Change under load: what a user of the service must not notice.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netd_tests::backend::vip;
use netd_tests::load::{Offer, Steady};
use netd_tests::traffic::{self, Download};
use netd_tests::{Backend, Daemon, Host, Lab, scenario};

/// A service of three backends, published on 8080.
fn stage(lab: &Lab) -> Result<(Host, Host, Daemon, Vec<Backend>)> {
    let (host, outsider) = (lab.host("n1")?, lab.host("outsider")?);
    let netd = host.daemon()?;
    netd.netd("network create app --ipv6")?;
    netd.netd("service create web --network app -p 8080:7000 -p 8080:7000/udp")?;
    let start = |number| Backend::start(&netd, &format!("web{number}"), "--network app --service web");
    let backends = (1..=3).map(start).collect::<Result<_>>()?;
    Ok((host, outsider, netd, backends))
}

#[test]
fn replacing_all_backends_one_by_one_loses_nothing() {
    scenario(|lab| {
        let (host, outsider, netd, backends) = stage(lab)?;
        let client = netd.create("client", "--network app")?;
        let inside = Steady::start(&client, Offer::tcp((vip::<Ipv4Addr>(&netd, "web")?, 7000).into(), 100))?;
        let outside = Steady::start(&outsider, Offer::tcp((host.v6, 8080).into(), 100))?;
        let mut replaced = Vec::new();
        for old in backends {
            let name = old.name.replace("web", "new");
            replaced.push(Backend::start(&netd, &name, "--network app --service web")?);
            outside.more(30)?;
            old.retire("web")?;
        }
        let since = Instant::now();
        outside.more(60)?;
        inside.more(1)?;
        for load in [inside, outside] {
            let tally = load.finish()?;
            tally.flawless(150)?;
            let last = tally.since(since).by();
            ensure!(last.keys().eq(["new1", "new2", "new3"]), "only new ones at the end: {last:?}");
        }
        Ok(())
    });
}

#[test]
fn restarting_either_process_loses_no_new_connection() {
    scenario(|lab| {
        let (host, outsider, netd, _backends) = stage(lab)?;
        let client = netd.create("client", "--network app")?;
        let offers = [
            (&client, Offer::tcp((vip::<Ipv4Addr>(&netd, "web")?, 7000).into(), 100)),
            (&outsider.place, Offer::tcp((host.v4, 8080).into(), 100)),
        ];
        let loads = offers.map(|(place, offer)| Steady::start(place, offer));
        let loads = loads.into_iter().collect::<Result<Vec<_>>>()?;
        loads.iter().try_for_each(|load| load.more(50))?;
        netd.kill()?;
        loads.iter().try_for_each(|load| load.more(50))?;
        netd.start()?;
        loads.iter().try_for_each(|load| load.more(50))?;
        let alive = Instant::now();
        netd.kill_dataplane()?;
        let killed = Instant::now();
        loads.iter().try_for_each(|load| load.more(150))?;
        for load in loads {
            let tally = load.finish()?;
            tally.since(killed).flawless(100)?;
            // Some end between its death and the moment at which that is known here.
            let under_way = tally.before(killed).ended_since(alive).attempts().len();
            ensure!(tally.failed() <= under_way, "{tally}");
        }
        Ok(())
    });
}

#[test]
fn the_hosts_firewall_flushed_or_full_of_doubt_breaks_no_service() {
    scenario(|lab| {
        let (host, outsider, netd, _backends) = stage(lab)?;
        let client = netd.create("client", "--network app")?;
        // What connection tracking does not understand is refused, as many firewalls have it.
        let doubt = "add table inet doubt
            add chain inet doubt input { type filter hook input priority 0; }
            add rule inet doubt input ct state invalid reject with tcp reset";
        host.run_with("nft -f -", doubt.as_bytes(), Duration::from_secs(5))?.success()?;
        let to = (host.v4, 8080).into();
        traffic::serve(netd.inside("web1").listen(([0, 0, 0, 0], 7100))?);
        netd.netd("publish web1 8100:7100")?;
        let download = Download::start(&outsider, (host.v4, 8100).into(), 32 << 20, Duration::from_secs(3))?;
        let loads = [
            Steady::start(&client, Offer::tcp((vip::<Ipv4Addr>(&netd, "web")?, 7000).into(), 100))?,
            Steady::start(&outsider, Offer::tcp(to, 100))?,
        ];
        loads.iter().try_for_each(|load| load.more(20))?;
        // Segments of the download's own connection that are far out of its window.
        outsider
            .run_with(
                "python3 -",
                STRAY.replace("HOST", &host.v4.to_string()).as_bytes(),
                Duration::from_secs(10),
            )?
            .success()?;
        host.sh("nft flush ruleset")?;
        let flushed = Instant::now();
        loads.iter().try_for_each(|load| load.more(150))?;
        download.finish()?;
        for load in loads {
            let tally = load.finish()?;
            ensure!(tally.since(flushed + Duration::from_secs(1)).failed() == 0, "{tally}");
            ensure!(tally.before(flushed).failed() == 0, "{tally}");
        }
        Ok(())
    });
}

/// Sends TCP segments with wild sequence numbers from each port that is connected to HOST:8100.
const STRAY: &str = r#"
import socket, struct
host = socket.inet_aton("HOST")
source = None
for line in open("/proc/net/tcp"):
    words = line.split()
    if words[2].endswith(":%04X" % 8100):
        source = (struct.pack("<I", int(words[1].split(":")[0], 16)), int(words[1].split(":")[1], 16))
assert source, "no connection to send on"
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
for number in range(20):
    head = struct.pack("!HHIIBBHHH", source[1], 8100, 0x10000000 * (number % 15 + 1), 12345, 5 << 4, 0x10, 512, 0, 0)
    pseudo = source[0] + host + struct.pack("!BBH", 0, 6, len(head))
    total = sum(struct.unpack("!%dH" % ((len(pseudo) + len(head)) // 2), pseudo + head))
    total = (total & 0xffff) + (total >> 16)
    total = (total & 0xffff) + (total >> 16)
    raw.sendto(head[:16] + struct.pack("!H", ~total & 0xffff) + head[18:], ("HOST", 0))
"#;
