//! Packets that are not what they say: from containers that pretend to be another, and from machines that are no nodes.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::capture::Capture;
use netd_tests::{Place, eventually, scenario};

use crate::stage::{SOON, resolves, stage};

#[test]
fn a_container_cannot_pretend_to_be_another() {
    scenario(|lab| {
        let it = stage(lab, 0, "")?;
        let victim = it.node(2).create("victim", "--network app")?;
        let villain = it.node(1).create("villain", "--network app")?;
        let friend = it.node(1).create("friend", "--network app")?;
        resolves(&villain, "victim", 1)?;
        resolves(&victim, "friend", 1)?;
        let victim4: Ipv4Addr = it.node(2).address("victim", "app")?;
        let friend4: Ipv4Addr = it.node(1).address("friend", "app")?;
        let friend6 = it.node(1).inspect("sandbox", "friend")?["NetworkSettings"]["Networks"]["app"]["GlobalIPv6Address"].clone();
        let friend6: Ipv6Addr = friend6.as_str().context("IPv6")?.parse()?;
        villain.sh(&format!("ping -c1 -W2 {victim4}"))?;
        let seen = Capture::start(&victim, "eth0", "arp or icmp or icmp6")?;
        let at_friend = Capture::start(&friend, "eth0", "arp or icmp6")?;
        let mac = villain.look("ip -o link show eth0")?;
        let mac =
            mac.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).context("its MAC")?;
        let script = FORGED
            .replace("VICTIM", &victim4.to_string())
            .replace("FRIEND4", &friend4.to_string())
            .replace("FRIEND6", &friend6.to_string())
            .replace("OWN", mac);
        villain.run_with("python3 -", script.as_bytes(), Duration::from_secs(10))?.success()?;
        // With another address, and with another MAC address, by the system's own means.
        villain.sh(&format!("ip addr add {friend4}/32 dev eth0"))?;
        ensure!(
            villain.run(&format!("ping -c2 -i0.2 -W1 -I {friend4} {victim4}"))?.code != 0,
            "its answer came"
        );
        villain.sh(&format!("ip addr del {friend4}/32 dev eth0"))?;
        villain.sh("ip link set eth0 address 02:00:00:00:be:ef")?;
        ensure!(villain.run(&format!("ping -c2 -i0.2 -W1 {victim4}"))?.code != 0, "another MAC address");
        villain.sh(&format!("ip link set eth0 address {mac}"))?;
        eventually(SOON, "itself is let through again", || {
            villain.sh(&format!("ping -c1 -W1 {victim4}")).map(drop)
        })?;
        friend.sh(&format!("ping -c1 -W2 {victim4}"))?;
        let lines = seen.sees(&format!("{friend4} > {victim4}"))?;
        let of_villain =
            lines.lines().filter(|line| line.contains(&format!("{friend4} > {victim4}"))).count();
        ensure!(of_villain == 1, "only the friend's own: {lines}");
        for lines in [&lines, &at_friend.lines()] {
            ensure!(!lines.contains(&format!("is-at {mac}")), "a forged answer came through: {lines}");
            ensure!(!lines.contains("be:ef") && !lines.contains("de:ad"), "{lines}");
        }
        Ok(())
    });
}

/// ARP replies and neighbour advertisements for the friend's addresses, and a frame with another MAC address.
const FORGED: &str = r#"
import socket, struct
own = bytes.fromhex("OWN".replace(":", ""))
friend4, friend6, victim = socket.inet_aton("FRIEND4"), socket.inet_pton(socket.AF_INET6, "FRIEND6"), socket.inet_aton("VICTIM")
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
every = b"\xff" * 6
arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + own + friend4 + every + victim
out.send(every + own + b"\x08\x06" + arp)
body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + friend6 + b"\x02\x01" + own
target = socket.inet_pton(socket.AF_INET6, "ff02::1")
pseudo = friend6 + target + struct.pack("!II", len(body), 58)
total = sum(struct.unpack("!%dH" % ((len(pseudo) + len(body)) // 2), pseudo + body))
total = (total & 0xffff) + (total >> 16)
total = (total & 0xffff) + (total >> 16)
body = body[:2] + struct.pack("!H", ~total & 0xffff) + body[4:]
head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + friend6 + target
out.send(bytes.fromhex("333300000001") + own + b"\x86\xdd" + head + body)
out.send(every + bytes.fromhex("02000000dead") + b"\x08\x06" + arp)
"#;

#[test]
fn tunnel_packets_from_who_is_no_node_are_dropped_and_counted() {
    scenario(|lab| {
        let it = stage(lab, 0, "")?;
        let victim = it.node(2).create("victim", "--network app")?;
        let villain = it.node(1).create("villain", "--network app")?;
        resolves(&villain, "victim", 1)?;
        let victim4: Ipv4Addr = it.node(2).address("victim", "app")?;
        villain.sh(&format!("ping -c1 -W2 {victim4}"))?;
        let link = victim.look("ip -o link show eth0")?;
        let mac =
            link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).context("its MAC")?;
        let vni = it.node(2).inspect("network", "app")?["Options"]["vni"].clone();
        let vni = vni.as_str().map_or_else(|| vni.to_string(), str::to_owned);
        let seen = Capture::start(&victim, "eth0", "udp port 5555 or icmp")?;
        let send = |from: &Place| -> Result<()> {
            let script = TUNNEL
                .replace("NODE", &it.node(2).host.v4.to_string())
                .replace("VNI", &vni)
                .replace("MAC", mac)
                .replace("VICTIM", &victim4.to_string());
            from.run_with("python3 -", script.as_bytes(), Duration::from_secs(10))?.success().map(drop)
        };
        let dropped = || -> Result<u64> {
            let metrics = it.node(2).http("GET", "/metrics", "")?.body;
            let lines = metrics.lines().filter(|line| line.starts_with("netd_overlay_dropped_packets"));
            Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
        };
        let before = dropped()?;
        send(&it.outsider)?;
        send(&villain)?;
        villain.sh(&format!("ping -c1 -W2 {victim4}"))?;
        let lines = seen.sees("ICMP echo request")?;
        ensure!(!lines.contains("5555"), "a forged packet came in: {lines}");
        eventually(SOON, "they are counted", || {
            let now = dropped()?;
            ensure!(now >= before + 2, "{before} before, {now} now");
            Ok(())
        })
    });
}

/// A VXLAN packet with a datagram for the victim in it.
const TUNNEL: &str = r#"
import socket, struct
inner_udp = struct.pack("!HHHH", 5555, 5555, 12, 0) + b"evil"
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(inner_udp), 1, 0, 64, 17, 0, socket.inet_aton("198.51.100.7"), socket.inet_aton("VICTIM"))
total = sum(struct.unpack("!10H", head))
total = (total & 0xffff) + (total >> 16)
head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + head[12:]
frame = bytes.fromhex("MAC".replace(":", "")) + bytes.fromhex("02000000dead") + b"\x08\x00" + head + inner_udp
vxlan = struct.pack("!II", 0x08000000, int("VNI") << 8) + frame
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(5):
    out.sendto(vxlan, ("NODE", 4789))
"#;
