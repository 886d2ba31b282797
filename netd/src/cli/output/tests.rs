//! What a person sees, to the letter.

use std::time::UNIX_EPOCH;

use super::*;

#[test]
fn a_table_has_aligned_columns_and_no_trailing_space() {
    let mut table = Table::new(&["NETWORK ID", "NAME", "SUBNETS"]);
    table.row(["0123456789ab".into(), "bridge".into(), "172.17.0.0/16".into()]);
    table.row(["ba9876543210".into(), "größer".into(), String::new()]);
    assert_eq!(
        table.render(),
        "NETWORK ID    NAME    SUBNETS\n\
         0123456789ab  bridge  172.17.0.0/16\n\
         ba9876543210  größer\n"
    );
}

#[test]
fn an_outline_shows_what_is_there_in_its_order() {
    let json = r#"{
        "Name": "app",
        "IPAM": { "Config": [{ "Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1" }, { "Subnet": "fd00::/64" }] },
        "Internal": false, "Labels": {}, "Empty": "", "Null": null, "None": [],
        "Aliases": ["a", "b"],
        "published_ports": 3
    }"#;
    assert_eq!(
        outline::render(json).unwrap(),
        "Name: app\n\
         IPAM:\n\
         \u{20} Config:\n\
         \u{20}   - Subnet: 10.0.0.0/24\n\
         \u{20}     Gateway: 10.0.0.1\n\
         \u{20}   - Subnet: fd00::/64\n\
         Internal: no\n\
         Aliases: a, b\n\
         published ports: 3\n"
    );
}

#[test]
fn a_complaint_is_one_line() {
    assert_eq!(one_line("create the network: a\n  b\r\nc\n"), "create the network: a b c");
}

#[test]
fn ages_are_told_in_one_unit() {
    let at = |seconds| {
        let then: Timestamp = UNIX_EPOCH.into();
        ago(then, UNIX_EPOCH + Duration::from_secs(seconds))
    };
    assert_eq!(
        [0, 1, 59, 60, 3_599, 3_600, 172_800].map(at),
        ["0 seconds", "1 second", "59 seconds", "1 minute", "59 minutes", "1 hour", "2 days"]
            .map(|age| format!("{age} ago"))
    );
    let later: Timestamp = (UNIX_EPOCH + Duration::from_secs(9)).into();
    assert_eq!(ago(later, UNIX_EPOCH), "0 seconds ago");
}
