use serde_json::{Value, json};

use super::*;
use crate::manager::docker::{AddressRequest, Joined, PoolRequest};
use crate::model::{Protocol, Purpose};

const NETWORK: &str = "bc480cef364012f64eb919c24c32a55480266aff41d050dd97bb53d382362f71";
const ENDPOINT: &str = "9a33951e21a86e231040b7e7e08c42b91df742c09e81855b382ecc2dec2ec7e1";

/// What dockerd 20.10 sends for `-p 99 -p 127.0.0.1:9090:90/udp -p 8080:80 -p 6000-6010:60 --expose 55`.
fn published_endpoint() -> Value {
    json!({
        "NetworkID": NETWORK,
        "EndpointID": ENDPOINT,
        "Interface": { "Address": "10.77.1.33/24", "AddressIPv6": "", "MacAddress": "02:00:00:00:00:07" },
        "Options": {
            "com.docker.network.endpoint.exposedports": [
                { "Proto": 6, "Port": 99 }, { "Proto": 17, "Port": 90 }, { "Proto": 6, "Port": 80 },
                { "Proto": 132, "Port": 70 }, { "Proto": 6, "Port": 55 },
            ],
            "com.docker.network.endpoint.macaddress": "AgAAAAAH",
            "com.docker.network.portmap": [
                { "Proto": 6, "IP": "", "Port": 99, "HostIP": "", "HostPort": 0, "HostPortEnd": 0 },
                { "Proto": 17, "IP": "", "Port": 90, "HostIP": "127.0.0.1", "HostPort": 9090, "HostPortEnd": 9090 },
                { "Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080 },
                { "Proto": 6, "IP": "", "Port": 60, "HostIP": "::1", "HostPort": 6000, "HostPortEnd": 6010 },
            ],
        },
    })
}

fn options(request: &Value) -> std::collections::BTreeMap<String, Value> {
    serde_json::from_value(request["Options"].clone()).unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_network_is_read_as_dockerd_sends_it() {
    let body = format!(
        r#"{{"NetworkID":"{NETWORK}","Options":{{"com.docker.network.enable_ipv6":true,"com.docker.network.generic":
        {{"com.docker.network.driver.mtu":"1400","icc":false}},"com.docker.network.internal":true}},"IPv4Data":[
        {{"AddressSpace":"netd","AuxAddresses":{{"x":"10.77.1.9/24"}},"Gateway":"10.77.1.2/24","Pool":"10.77.1.0/24"}}],
        "IPv6Data":[{{"AddressSpace":"LocalDefault","Gateway":"fd00:9::1/64","Pool":"fd00:9::/64"}}]}}"#
    );
    let new = network::new_network(body.as_bytes()).unwrap();
    assert_eq!(&*new.id, NETWORK);
    assert!(new.internal);
    assert_eq!(new.options["com.docker.network.driver.mtu"], "1400");
    assert_eq!(new.options["icc"], "false");
    assert_eq!(new.promised, ["10.77.1.0/24".parse().unwrap()], "what another driver gave is not ours");
    let [v4, v6] = new.subnets.as_slice() else { panic!("{:?}", new.subnets) };
    assert_eq!(v4.gateway, Some("10.77.1.2".parse().unwrap()));
    assert_eq!(v4.auxiliary["x"], "10.77.1.9".parse::<std::net::IpAddr>().unwrap());
    assert_eq!(v6.subnet, "fd00:9::/64".parse().unwrap());
}

#[test]
fn what_go_leaves_out_or_writes_as_null_is_nothing() {
    let body = format!(
        r#"{{"NetworkID":"{NETWORK}","Options":{{"com.docker.network.generic":null}},"IPv4Data":[{{"Pool":"10.1.0.0/24",
        "AuxAddresses":null}}],"IPv6Data":null,"SomethingNew":7}}"#
    );
    let new = network::new_network(body.as_bytes()).unwrap();
    assert!(!new.internal && new.options.is_empty() && new.promised.is_empty());
    assert_eq!(new.subnets[0].gateway, None);
}

#[test]
fn an_endpoint_is_read_as_dockerd_sends_it() {
    let request = published_endpoint();
    let new = endpoint::new_endpoint(request.to_string().as_bytes()).unwrap();
    assert_eq!((&*new.id, &*new.network), (ENDPOINT, NETWORK));
    assert_eq!(new.v4, Some(("10.77.1.33".parse().unwrap(), 24)));
    assert_eq!(new.v6, None);
    assert_eq!(new.mac.unwrap().to_string(), "02:00:00:00:00:07");
    let exposed: Vec<_> = new.exposes.iter().map(|range| (range.protocol, range.first)).collect();
    assert_eq!(
        exposed,
        [(Protocol::Tcp, 55), (Protocol::Tcp, 80), (Protocol::Tcp, 99), (Protocol::Udp, 90)],
        "sorted, without what is not served"
    );
}

#[test]
fn published_ports_become_the_specs_a_user_would_write() {
    let specs: Vec<_> = ports::published(&options(&published_endpoint())).unwrap();
    let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
    assert_eq!(specs, ["99/tcp", "127.0.0.1:9090:90/udp", "8080:80/tcp", "[::1]:6000-6010:60/tcp"]);
    assert!(ports::published(&options(&json!({ "Options": {} }))).unwrap().is_empty());
    let null = json!({ "Options": { "com.docker.network.portmap": null } });
    assert!(ports::published(&options(&null)).unwrap().is_empty());
}

#[test]
fn a_wrong_field_is_named_with_what_is_wrong() {
    let network = |body: &str| refused(network::new_network(body.as_bytes()));
    assert!(network("{").starts_with("the request cannot be read: EOF"), "{}", network("{"));
    assert!(network("{}").contains("missing field `NetworkID`"));
    assert!(network(r#"{"NetworkID":"../../../etc"}"#).starts_with("NetworkID: "));
    assert!(network(r#"{"NetworkID":7}"#).starts_with("NetworkID: "));
    let with = |more: &str| network(&format!(r#"{{"NetworkID":"{NETWORK}",{more}}}"#));
    assert!(with(r#""IPv4Data":[{"Pool":"10.1.0.0/64"}]"#).starts_with("IPv4Data[0].Pool: "));
    assert!(with(r#""IPv4Data":[{"Pool":""}]"#).contains("the subnet is missing"));
    assert!(
        with(r#""IPv4Data":[{"Pool":"10.1.0.0/24","Gateway":"x"}]"#).starts_with("IPv4Data[0].Gateway: ")
    );
    assert!(with(r#""IPv4Data":7"#).starts_with("IPv4Data: "));
    assert!(with(r#""Options":{"com.docker.network.generic":[]}"#).contains("no object"));
    assert!(with(r#""Options":{"com.docker.network.generic":{"mtu":[]}}"#).contains("generic.mtu: "));
    assert!(network(&format!(r#"{{"NetworkID":"{NETWORK}"}} more"#)).contains("more follows"));

    let mut sctp = published_endpoint();
    sctp["Options"]["com.docker.network.portmap"][2]["Proto"] = json!(132);
    let said = refused(ports::published(&options(&sctp)));
    assert_eq!(
        said,
        "Options.com.docker.network.portmap[2].Proto: sctp is not served; publish tcp or udp ports"
    );
    let mut odd = published_endpoint();
    odd["Options"]["com.docker.network.portmap"][0]["Port"] = json!(70_000);
    assert!(refused(ports::published(&options(&odd))).contains("portmap[0].Port"));
    let mut crossed = published_endpoint();
    crossed["Interface"]["Address"] = json!("fd00::2/64");
    let said = refused(endpoint::new_endpoint(crossed.to_string().as_bytes()));
    assert_eq!(said, "Interface.Address: it is an IPv6 address");
}

#[test]
fn a_long_value_is_not_repeated_as_a_whole() {
    let body = json!({ "NetworkID": "A".repeat(100_000) }).to_string();
    assert!(refused(network::new_network(body.as_bytes())).len() < 300);
}

#[test]
fn pools_and_addresses_are_read_as_dockerd_sends_them() {
    let pool = |body: &str| pool::pool_request(body.as_bytes());
    let any = r#"{"AddressSpace":"netd","Pool":"","SubPool":"","Options":{},"V6":true}"#;
    assert_eq!(pool(any).unwrap(), PoolRequest { subnet: None, range: None, v6: true });
    let given = r#"{"AddressSpace":"netd","Pool":"10.77.1.0/24","SubPool":"10.77.1.128/25","Options":null,"V6":false}"#;
    let wanted = PoolRequest {
        subnet: Some("10.77.1.0/24".parse().unwrap()),
        range: Some("10.77.1.128/25".parse().unwrap()),
        v6: false,
    };
    assert_eq!(pool(given).unwrap(), wanted);
    assert!(refused(pool(r#"{"AddressSpace":"other"}"#)).starts_with("AddressSpace: "));
    assert!(refused(pool(r#"{"Options":{"a":"b"}}"#)).contains("no option \"a\""));
    assert!(refused(pool(r#"{"SubPool":"10.1.0.0/24"}"#)).starts_with("SubPool: "));

    let gateway = r#"{"PoolID":"10.77.1.0/24","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}"#;
    let wanted = AddressRequest { pool: "10.77.1.0/24".into(), address: None, purpose: Purpose::Gateway };
    assert_eq!(pool::address_request(gateway.as_bytes()).unwrap(), wanted);
    let fixed = r#"{"PoolID":"10.77.1.0/24","Address":"10.77.1.33","Options":null}"#;
    let wanted = AddressRequest {
        pool: "10.77.1.0/24".into(),
        address: Some("10.77.1.33".parse().unwrap()),
        purpose: Purpose::Host,
    };
    assert_eq!(pool::address_request(fixed.as_bytes()).unwrap(), wanted);
}

#[test]
fn the_answer_to_join_says_where_the_device_is_and_which_way_leads_out() {
    let gateways = vec!["10.1.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let shown = endpoint::joined_as_json(&Joined { device: "nw0123456789ab".into(), gateways });
    assert_eq!(shown["InterfaceName"], json!({ "SrcName": "nw0123456789ab", "DstPrefix": "eth" }));
    assert_eq!((&shown["Gateway"], &shown["GatewayIPv6"]), (&json!("10.1.0.1"), &json!("fd00::1")));
    let inside = endpoint::joined_as_json(&Joined { device: "nw0".into(), gateways: Vec::new() });
    assert_eq!((&inside["Gateway"], &inside["GatewayIPv6"]), (&json!(""), &json!("")));
    assert_eq!(inside["DisableGatewayService"], json!(true), "else Docker makes a way out of its own");
}

#[test]
fn an_error_is_where_both_drivers_of_dockerd_look_for_it() {
    let shown = refusal(&ApiError::conflict("taken").remedy("choose another"));
    assert_eq!(shown, json!({ "Err": "taken; choose another", "Error": "taken; choose another" }));
}
