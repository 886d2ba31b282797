//! Flags into the request, as the daemon gets it.

use clap::Parser;
use serde_json::json;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: CreateArgs,
}

fn request(line: &str) -> Result<serde_json::Value> {
    let line = Line::try_parse_from(["create"].into_iter().chain(line.split_whitespace()))?;
    Ok(serde_json::to_value(line.args.request()?)?)
}

#[test]
fn nothing_is_asked_for_that_was_not_said() {
    let wanted = json!({
        "Name": "app", "Driver": "bridge", "EnableIPv6": false, "IPAM": { "Config": [] },
        "Internal": false, "Options": {}, "Labels": {},
    });
    assert_eq!(request("app").unwrap(), wanted);
}

#[test]
fn gateways_ranges_and_auxiliary_addresses_find_their_subnet() {
    let request = request(
        "app --subnet fd00:1::/64 --subnet 10.7.0.0/16 --gateway 10.7.0.1 --gateway fd00:1::1 \
         --ip-range 10.7.1.0/24 --aux-address nas=10.7.0.9 -o mtu=1400 --label a=b=c --label d",
    )
    .unwrap();
    let config = json!([
        { "Subnet": "fd00:1::/64", "Gateway": "fd00:1::1" },
        {
            "Subnet": "10.7.0.0/16", "Gateway": "10.7.0.1", "IPRange": "10.7.1.0/24",
            "AuxiliaryAddresses": { "nas": "10.7.0.9" },
        },
    ]);
    assert_eq!(request["IPAM"]["Config"], config);
    assert_eq!(request["EnableIPv6"], true);
    assert_eq!(request["Options"], json!({ "mtu": "1400" }));
    assert_eq!(request["Labels"], json!({ "a": "b=c", "d": "" }));
}

#[test]
fn what_lies_in_no_subnet_is_told() {
    let wrong = [
        ("app --gateway 10.0.0.1", "--gateway 10.0.0.1: it lies in no --subnet"),
        ("app --subnet 10.7.0.0/16 --ip-range 10.8.0.0/24", "--ip-range 10.8.0.0: it lies in no --subnet"),
        ("app --subnet 10.7.0.0/16 --aux-address a=x", "--aux-address a=x: not an IP address"),
        (
            "app --subnet 10.7.0.0/16 --gateway 10.7.0.1 --gateway 10.7.0.2",
            "has the gateway 10.7.0.1 already",
        ),
    ];
    for (line, cause) in wrong {
        let error = format!("{:#}", request(line).unwrap_err());
        assert!(error.contains(cause), "{line}: {error}");
    }
}
