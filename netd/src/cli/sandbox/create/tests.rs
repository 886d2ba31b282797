//! Flags into the request, as the daemon gets it.

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: CreateArgs,
}

fn request(line: &str) -> Result<Value> {
    let line = Line::try_parse_from(["create"].into_iter().chain(line.split_whitespace()))?;
    Ok(serde_json::to_value(line.args.request()?)?)
}

#[test]
fn flags_become_fields() {
    let request = request(
        "web -p 8080:80 -p [::1]::53/udp --expose 90-99 -P --hostname h --dns 9.9.9.9 --dns-search lan \
         --dns-option ndots:2 --add-host db:10.0.0.1 --link redis:cache --label a=b --netns /run/x",
    )
    .unwrap();
    assert_eq!(
        request,
        json!({
            "Name": "web", "NetworkMode": "bridge", "Networks": [], "Hostname": "h",
            "Publish": ["8080:80/tcp", "[::1]::53/udp"], "Expose": ["90-99/tcp"], "PublishAll": true,
            "Dns": ["9.9.9.9"], "DnsSearch": ["lan"], "DnsOptions": ["ndots:2"],
            "ExtraHosts": ["db:10.0.0.1"], "Links": ["redis:cache"], "Labels": { "a": "b" },
            "Netns": "/run/x", "Owner": "cli",
        })
    );
}

#[test]
fn names_and_addresses_are_about_the_first_network() {
    let request = request(
        "web --network app --network name=db,alias=front,ip=10.2.0.9 --alias search --ip 10.1.0.9 \
         --mac 02:00:00:00:00:01",
    )
    .unwrap();
    assert_eq!(
        request["Networks"],
        json!([
            {
                "Network": "app", "Aliases": ["search"], "IPv4Address": "10.1.0.9",
                "MacAddress": "02:00:00:00:00:01",
            },
            { "Network": "db", "Aliases": ["front"], "IPv4Address": "10.2.0.9" },
        ])
    );
    assert_eq!(self::request("web --ip 172.17.0.9").unwrap()["Networks"][0]["Network"], "bridge");
}

#[test]
fn modes_stand_alone() {
    for mode in ["host", "none", "container:db"] {
        let request = request(&format!("web --network {mode}")).unwrap();
        assert_eq!((&request["NetworkMode"], &request["Networks"]), (&json!(mode), &json!([])));
    }
    let wrong = [
        ("web --network host --network app", "cannot be combined with a network"),
        ("web --network app --network none", "cannot be combined with a network"),
        ("web --network host --ip 10.0.0.1", "there is no network"),
        ("web --network name=app,ip=10.0.0.1 --ip 10.0.0.2", "give one"),
        ("web --network alias=x,ip=10.0.0.1", "name= is missing"),
        ("web --network name=app,ip=x", "ip= takes an IP address"),
    ];
    for (line, cause) in wrong {
        let error = format!("{:#}", request(line).unwrap_err());
        assert!(error.contains(cause), "{line}: {error}");
    }
}
