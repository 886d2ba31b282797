//! What users of services ask for and cannot have: told by name, and nothing has changed.

use anyhow::{Context, ensure};
use netd_tests::scenario;

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        netd.netd("network create app --subnet 10.9.0.0/24")?;
        netd.netd("network create tiny --subnet 10.9.1.0/29")?;
        netd.netd("service create web --network app --vip 10.9.0.250")?;
        netd.netd("network create other")?;
        netd.netd("service create alias --network other --external-name example.org")?;
        netd.create("plain", "--network app --ip 10.9.0.9")?;
        let before = netd.netd("service ls --format json")?.stdout;
        for (line, says) in [
            ("service create web --network app", "in use by service"),
            ("service create x --network nowhere", "there is no network \"nowhere\""),
            ("service create x --network host", "network host has no addresses"),
            ("service create x --network app -p 81:80 -p 81:81", "publishes 81/tcp in two ways"),
            ("service create x --network app --external-name x", "another name for itself"),
            ("stats --no-stream nobody", "nothing is counted for \"nobody\""),
            ("service create x --network app --vip 10.9.0.250", "held by service web"),
            ("service create x --network app --vip 10.9.0.9", "held by sandbox plain"),
            ("service create x --network app --vip 10.8.0.9", "outside of subnet"),
            ("service create x --network app --vip 10.9.0.1", "the gateway"),
            ("service create x --network app --vip fd00::1", "no IPv6 subnet"),
            ("service create x --network tiny", "too small"),
            ("service create x --network app --endpoint-mode dnsrr --vip 10.9.0.8", "endpoint mode vip only"),
            ("service create x --network app --health tcp", "names no port"),
            ("service create x --network app --health tcp:80 --health-interval 1ms", "Health.Interval"),
            ("service create x --network app --health-rise 3", "no health check"),
            ("service create x --network app --external-name e.org -p 80:80", "has no endpoints"),
            ("service create x --network app --endpoint-mode dnsrr --east-west connect", "EastWest"),
            (
                "service create x --network app -p published=53,target=53,protocol=udp,proxy-protocol=v1",
                "PROXY protocol",
            ),
            ("service create x --network app --port 80:1 --port 80:2", "contradicts"),
            ("service update web --port-rm 80", "has no port 80/tcp"),
            ("service update web --publish-rm 80", "does not publish"),
            ("service update web --backend-rm 192.0.2.1:80", "has no backend"),
            ("service update web --backend-add 10.9.0.250:80", "own address"),
            ("service drain web nobody", "has no endpoint \"nobody\""),
            ("service drain nothing x", "there is no service \"nothing\""),
            ("sandbox create x --service nothing", "there is no service \"nothing\""),
            ("sandbox create x --service alias", "has no endpoints"),
            ("sandbox create x --service web --network none", "network mode none"),
            ("network rm other", "has services: alias"),
        ] {
            netd.try_netd(line)?.refused(1, says).with_context(|| line.to_owned())?;
        }
        for (line, says) in [
            ("service create x.y --network app", "'.' may not be in it"),
            ("service create x --network app --affinity cookie", "no such affinity"),
            ("service create x --network app --backend 192.0.2.1", "IP:PORT"),
            ("service create x --network app --vip 10.9.0.7 --vip 10.9.0.8", "one address of a family"),
            ("sandbox create x --service web,weight=0", "1 to 65535"),
            ("events --since soon", "--since"),
        ] {
            netd.try_netd(line)?.refused(2, says).with_context(|| line.to_owned())?;
        }
        ensure!(netd.netd("service ls --format json")?.stdout == before, "nothing has changed");
        // Filters, ids, several names at once, the good ones done.
        ensure!(netd.netd("service ls -q --filter mode=external-name")?.stdout.lines().count() == 1);
        netd.try_netd("service rm alias nobody web")?.refused(1, "nobody")?;
        ensure!(netd.netd("service ls -q")?.stdout.is_empty());
        netd.netd("network rm tiny").map(drop)
    });
}
