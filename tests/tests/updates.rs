//! What changes while it works: names of a sandbox on one network, and the options of a network.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use hickory_proto::rr::RecordType;
use netd_tests::query::{self, Resolver};
use netd_tests::{Daemon, Place, eventually, scenario};

fn reaches(from: &Place, to: Ipv4Addr) -> Result<bool> {
    Ok(from.run(&format!("ping -c1 -W1 {to}"))?.code == 0)
}

fn becomes(from: &Place, to: Ipv4Addr, wanted: bool) -> Result<()> {
    eventually(Duration::from_secs(5), "the change is carried out", || {
        ensure!(reaches(from, to)? == wanted, "{} to {to}: wanted {wanted}", from.name);
        Ok(())
    })
}

fn refused(netd: &Daemon, line: &str, why: &str) -> Result<()> {
    let done = netd.try_netd(line)?;
    ensure!(done.code == 1 && done.stderr.contains(why), "{line}: {done:?}");
    Ok(())
}

#[test]
fn a_sandbox_gets_more_names_and_loses_them_again() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app")?;
        netd.create("web", "--network app --alias green")?;
        let client = netd.create("client", "--network app")?;
        let web: IpAddr = netd.address("web", "app")?;
        let resolver = Resolver::new(&client)?;
        netd.netd("network alias --add blue --add Shop.Example app web")?;
        for name in ["web", "green", "blue", "shop.example"] {
            ensure!(resolver.addresses(name)? == [web], "{name}");
        }
        // Once more is no error, and neither is taking what is not there.
        netd.netd("network alias --add blue --rm green --rm never app web")?;
        let green = resolver.ask("green", RecordType::A)?;
        ensure!(resolver.addresses("blue")? == [web] && query::addresses(&green).is_empty(), "{green:?}");
        let shown = netd.inspect("sandbox", "web")?["NetworkSettings"]["Networks"]["app"].clone();
        ensure!(shown["Aliases"] == serde_json::json!(["blue", "shop.example"]), "{shown}");
        netd.kill()?;
        netd.start()?;
        ensure!(resolver.addresses("blue")? == [web], "names outlive the daemon");

        netd.netd("network create other")?;
        refused(&netd, "network alias --add x other web", "is not on network other")?;
        netd.create("plain", "")?;
        refused(&netd, "network alias --add x bridge plain", "has no aliases")?;
        refused(&netd, "network alias --add x app nobody", "nobody")
    });
}

#[test]
fn isolation_changes_while_sandboxes_are_on_the_network() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app -o isolate=false")?;
        netd.netd("network create other -o isolate=false")?;
        let one = netd.create("one", "--network app")?;
        netd.create("two", "--network app")?;
        let far = netd.create("far", "--network other")?;
        let (first, second) = (netd.address("one", "app")?, netd.address("two", "app")?);
        becomes(&far, first, true)?;
        netd.netd("network update -o isolate=true app")?;
        becomes(&far, first, false)?;
        becomes(&one, second, true)?;
        netd.netd("network update -o icc=false app")?;
        becomes(&one, second, false)?;
        let late = netd.create("late", "--network app")?;
        becomes(&late, second, false)?;
        netd.netd("network update -o icc=true -o isolate=false app")?;
        becomes(&late, second, true)?;
        becomes(&far, first, true)?;
        let options = netd.inspect("network", "app")?["Options"].clone();
        ensure!(options["icc"] == "true" && options["isolate"] == "false", "{options}");
        refused(&netd, "network update -o mtu=1400 app", "mtu cannot be changed")?;
        refused(&netd, "network update -o icc=perhaps app", "perhaps")
    });
}
