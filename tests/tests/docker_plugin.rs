//! Docker's plugin protocol on netd's socket, call by call, with what dockerd 20.10 sends. The real dockerd drives it in
//! `runtimes`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::daemon::Setup;
use netd_tests::{Lab, eventually, http, scenario};
use serde_json::{Value, json};

const SOCKET: &str = "/run/plugins/netd.sock";
const NETWORK: &str = "bc480cef364012f64eb919c24c32a55480266aff41d050dd97bb53d382362f71";
const ENDPOINT: &str = "9a33951e21a86e231040b7e7e08c42b91df742c09e81855b382ecc2dec2ec7e1";

fn plugin() -> Setup {
    Setup { config: format!("[docker]\nplugin = true\nsocket = \"{SOCKET}\"\n"), ..Setup::default() }
}

fn post(call: &str, body: &str) -> Result<(u16, Value)> {
    let answer = http::request(Path::new(SOCKET), "POST", &format!("/{call}"), body)?;
    let value = serde_json::from_str(&answer.body).with_context(|| format!("{call}: {answer:?}"))?;
    Ok((answer.status, value))
}

/// A call that has to succeed.
fn call(call: &str, body: &Value) -> Result<Value> {
    let (status, value) = post(call, &body.to_string())?;
    ensure!(status == 200 && value["Err"].is_null(), "{call} {body}: {status} {value}");
    Ok(value)
}

/// A call that has to fail, and what it says.
fn refused(call: &str, body: &Value) -> Result<String> {
    let (status, value) = post(call, &body.to_string())?;
    ensure!(
        status == 200 && value["Err"].is_string() && value["Err"] == value["Error"],
        "{call} {body}: {value}"
    );
    Ok(value["Err"].as_str().unwrap_or_default().to_owned())
}

fn network(space: &str) -> Value {
    json!({
        "NetworkID": NETWORK,
        "Options": { "com.docker.network.enable_ipv6": false, "com.docker.network.generic": {} },
        "IPv4Data": [{ "AddressSpace": space, "Gateway": "10.77.1.1/24", "Pool": "10.77.1.0/24" }],
        "IPv6Data": [],
    })
}

fn endpoint(address: &str) -> Value {
    let interface = json!({ "Address": address, "AddressIPv6": "", "MacAddress": "" });
    json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": interface, "Options": {} })
}

fn named() -> Value {
    json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT })
}

#[test]
fn what_is_no_call_is_refused_and_harms_nobody() {
    scenario(|lab: &Lab| {
        let host = lab.host("n1")?;
        std::fs::write("/run/lab/bad.toml", "[docker]\nplugin = true\nsocket = \"netd\"\n")?;
        host.run("netd run --config /run/lab/bad.toml")?
            .refused(1, "docker.socket is netd: Docker finds a plugin by")?;
        let daemon = host.daemon_with(plugin())?;
        for (body, says) in [
            ("{", "cannot be read"),
            ("[]", "cannot be read"),
            ("null", "cannot be read"),
            (r#"{"NetworkID":"../../etc/passwd"}"#, "NetworkID: "),
            (r#"{"NetworkID":"'; DROP TABLE networks; --"}"#, "NetworkID: "),
            (r#"{"NetworkID":"0123456789ab","IPv4Data":[{"Pool":"999.0.0.0/8"}]}"#, "IPv4Data[0].Pool: "),
        ] {
            let (_, answer) = post("NetworkDriver.CreateNetwork", body)?;
            ensure!(answer["Err"].as_str().is_some_and(|error| error.contains(says)), "{body}: {answer}");
        }
        let (status, answer) = post("NetworkDriver.CreateNetwork", &"9".repeat(2 * 1024 * 1024))?;
        ensure!(status == 400 && answer["Err"].to_string().contains("larger than"), "{status} {answer}");
        let (status, _) = post("NetworkDriver.GwAllocCheck", "{}")?;
        ensure!(status == 404, "dockerd tells by it what a plugin does not know: {status}");
        let answer = http::request(Path::new(SOCKET), "GET", "/Plugin.Activate", "")?;
        ensure!(answer.status == 405, "{answer:?}");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let (_, answer) = post("NetworkDriver.CreateEndpoint", &deep)?;
        ensure!(answer["Err"].is_string(), "{answer}");
        let error = refused("NetworkDriver.CreateEndpoint", &endpoint("10.77.1.2/24"))?;
        ensure!(error.contains("docker network rm"), "{error}");
        let error =
            refused("IpamDriver.RequestAddress", &json!({ "PoolID": "x".repeat(10_000), "Address": "" }))?;
        ensure!(error.contains("has no address pool"), "{error}");
        let error = refused("NetworkDriver.AllocateNetwork", &json!({}))?;
        ensure!(error.contains("--scope swarm"), "{error}");
        call("Plugin.Activate", &json!({}))?;
        let networks = daemon.netd("network ls -q")?;
        ensure!(networks.text().lines().count() == 3, "{networks:?}");
        Ok(())
    });
}

#[test]
fn every_call_can_be_repeated_across_a_crash_of_netd() {
    scenario(|lab: &Lab| {
        let host = lab.host("n1")?;
        let daemon = host.daemon_with(plugin())?;
        let twice = |name: &str, body: &Value| {
            let first = call(name, body)?;
            daemon.kill()?;
            daemon.start()?;
            let again = call(name, body)?;
            ensure!(first == again, "{name}: {first} and then {again}");
            Ok(first)
        };
        let pool = json!({ "AddressSpace": "netd", "Pool": "10.77.1.0/24", "SubPool": "", "Options": {}, "V6": false });
        let pool = twice("IpamDriver.RequestPool", &pool)?["PoolID"].clone();
        let gateway = json!({ "RequestAddressType": "com.docker.network.gateway" });
        let gateway = json!({ "PoolID": pool, "Address": "", "Options": gateway });
        ensure!(twice("IpamDriver.RequestAddress", &gateway)?["Address"] == "10.77.1.1/24");
        twice("NetworkDriver.CreateNetwork", &network("netd"))?;
        let any = json!({ "PoolID": pool, "Address": "", "Options": null });
        ensure!(call("IpamDriver.RequestAddress", &any)?["Address"] == "10.77.1.2/24");
        twice("NetworkDriver.CreateEndpoint", &endpoint("10.77.1.2/24"))?;
        let join = json!({
            "NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": "/run/plugins/netns", "Options": {},
        });
        let joined = twice("NetworkDriver.Join", &join)?;
        ensure!(joined["Gateway"] == "10.77.1.1", "{joined}");
        let device = joined["InterfaceName"]["SrcName"].as_str().context("a device")?;
        host.sh(&format!("ip link show {device}"))?;
        let mut program = named();
        program["Options"] = json!({ "com.docker.network.portmap": [
            { "Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080 },
            { "Proto": 17, "IP": "", "Port": 53, "HostIP": "", "HostPort": 0, "HostPortEnd": 0 },
        ]});
        twice("NetworkDriver.ProgramExternalConnectivity", &program)?;
        let ports = daemon.netd(&format!("port {ENDPOINT}"))?;
        ensure!(ports.stdout.contains("80/tcp -> 0.0.0.0:8080"), "{ports:?}");
        ensure!(ports.stdout.lines().count() == 4, "each once in both families: {ports:?}");
        for (name, body) in [
            ("NetworkDriver.RevokeExternalConnectivity", named()),
            ("NetworkDriver.Leave", named()),
            ("NetworkDriver.DeleteEndpoint", named()),
            ("IpamDriver.ReleaseAddress", json!({ "PoolID": pool, "Address": "10.77.1.2" })),
            ("IpamDriver.ReleaseAddress", json!({ "PoolID": pool, "Address": "10.77.1.1" })),
            ("IpamDriver.ReleasePool", json!({ "PoolID": pool })),
            ("NetworkDriver.DeleteNetwork", json!({ "NetworkID": NETWORK })),
        ] {
            twice(name, &body)?;
        }
        ensure!(daemon.netd("sandbox ls -q")?.text().is_empty());
        eventually(Duration::from_secs(5), "no link is left", || {
            let links = host.look("ip -br link")?;
            ensure!(!["nv", "nw", "nd-"].iter().any(|mark| links.contains(mark)), "{links}");
            Ok(())
        })?;
        // The subnet is free again for everybody.
        daemon.netd("network create --subnet 10.77.1.0/24 own").map(drop)
    });
}

#[test]
fn subnets_and_addresses_are_given_once() {
    scenario(|lab: &Lab| {
        let daemon = lab.host("n1")?.daemon_with(plugin())?;
        daemon.netd("network create --subnet 10.60.0.0/24 own")?;
        let pool =
            |subnet: &str, range: &str| json!({ "AddressSpace": "netd", "Pool": subnet, "SubPool": range });
        let error = refused("IpamDriver.RequestPool", &pool("10.60.0.0/16", ""))?;
        ensure!(error.contains("overlaps 10.60.0.0/24 of network own"), "{error}");
        let small = call("IpamDriver.RequestPool", &pool("10.61.0.0/28", "10.61.0.4/30"))?["PoolID"].clone();
        let said = daemon.try_netd("network create --subnet 10.61.0.0/24 other")?;
        said.refused(1, "which Docker holds for a network")?;
        let chosen = daemon.netd("network inspect bridge")?.json()?[0]["IPAM"]["Config"][0]["Subnet"].clone();
        let any = call("IpamDriver.RequestPool", &pool("", ""))?;
        ensure!(any["Pool"] != chosen, "{any}");
        let v6 = call("IpamDriver.RequestPool", &json!({ "AddressSpace": "netd", "V6": true }))?;
        ensure!(v6["Pool"].as_str().is_some_and(|pool| pool.starts_with("fd")), "{v6}");

        let ask = |address: &str| json!({ "PoolID": small, "Address": address, "Options": null });
        for wanted in ["10.61.0.4/28", "10.61.0.5/28", "10.61.0.6/28", "10.61.0.7/28"] {
            let got = call("IpamDriver.RequestAddress", &ask(""))?;
            ensure!(got["Address"] == wanted, "{got}");
        }
        let error = refused("IpamDriver.RequestAddress", &ask(""))?;
        ensure!(error.contains("no address is left in 10.61.0.4/30"), "{error}");
        call("IpamDriver.RequestAddress", &ask("10.61.0.9"))?;
        let error = refused("IpamDriver.RequestAddress", &ask("10.61.0.9"))?;
        ensure!(error.contains("10.61.0.9") && error.contains("is held by"), "{error}");
        let error = refused("IpamDriver.RequestAddress", &ask("10.61.0.15"))?;
        ensure!(error.contains("broadcast"), "{error}");
        call("IpamDriver.ReleaseAddress", &ask("10.61.0.5"))?;
        ensure!(call("IpamDriver.RequestAddress", &ask(""))?["Address"] == "10.61.0.5/28");
        call("IpamDriver.ReleasePool", &json!({ "PoolID": small }))?;
        daemon.netd("network create --subnet 10.61.0.0/24 other").map(drop)
    });
}
