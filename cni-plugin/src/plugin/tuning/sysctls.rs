//! Sysctls as `tuning` is given them: in either spelling, of the network only, and as far as the machine's administrator
//! allows. Pure but for reading the list.

use std::fs;
use std::io;
use std::path::Path;

use regex_lite::Regex;

use crate::error::{Code, Failure, Result};
use crate::spec::Node;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sysctl {
    /// With slashes, from `net` on.
    pub key: String,
    pub value: String,
}

/// `IFNAME` in a key stands for the container's device.
pub(super) fn read(given: &Node<'_>, interface: &str) -> Result<Vec<Sysctl>> {
    let mut found: Vec<Sysctl> = Vec::new();
    for name in given.object()?.keys() {
        let Some(node) = given.member(name)? else { continue };
        let value = node.text()?;
        let key = with_slashes(name).replace("IFNAME", interface);
        let parts = || key.split('/');
        if parts().next() != Some("net") || parts().any(|part| matches!(part, "" | "." | "..")) {
            let cause = format!("{name:?} is no sysctl of the network; others are the whole machine's");
            return Err(given.invalid(&cause));
        }
        if found.iter().any(|other| other.key == key) {
            return Err(given.invalid(&format!("{name:?} is there in another spelling")));
        }
        found.push(Sysctl { key, value: value.to_owned() });
    }
    Ok(found)
}

/// As sysctl(8) reads it: the separator that comes first is the one, and the other character belongs to names.
fn with_slashes(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Without the file all is allowed; with it, what one of its lines matches.
pub(super) fn allowed(sysctls: &[Sysctl], list: &Path) -> Result<()> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let text = match fs::read_to_string(list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(|error| unusable(list, &error.to_string()))?,
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let patterns = lines
        .map(|line| Regex::new(line).map_err(|error| unusable(list, &format!("{line:?}: {error}"))))
        .collect::<Result<Vec<_>>>()?;
    for Sysctl { key, .. } in sysctls {
        let dotted = key.replace('/', ".");
        if !patterns.iter().any(|pattern| pattern.is_match(&dotted) || pattern.is_match(key)) {
            let details = format!("add a line to {} if it is meant", list.display());
            return Err(Failure::new(
                Code::InvalidConfig,
                format!("the sysctl {dotted} is not allowed"),
                details,
            ));
        }
    }
    Ok(())
}

fn unusable(list: &Path, cause: &str) -> Failure {
    Failure::new(Code::InvalidConfig, format!("cannot use the list {}", list.display()), cause)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn keys(given: &Value) -> Result<Vec<String>> {
        Ok(read(&Node::root(given), "eth0.5")?.into_iter().map(|one| one.key).collect())
    }

    #[test]
    fn both_spellings_lead_to_one_key() {
        let given = json!({ "net.ipv4.conf.IFNAME.arp_filter": "1", "net/core/somaxconn": "500",
                            "net.ipv4.conf.eth1/7.rp_filter": "1" });
        let wanted =
            ["net/ipv4/conf/eth0.5/arp_filter", "net/ipv4/conf/eth1.7/rp_filter", "net/core/somaxconn"];
        let mut found = keys(&given).unwrap();
        found.sort_by_key(|key| wanted.iter().position(|wanted| wanted == key));
        assert_eq!(found, wanted);
    }

    #[test]
    fn one_key_in_two_spellings_and_keys_of_the_machine_are_refused() {
        for given in [
            json!({ "net.core.somaxconn": "1", "net/core/somaxconn": "2" }),
            json!({ "kernel.hostname": "x" }),
            json!({ "net/../kernel/hostname": "x" }),
            json!({ "net..x": "x" }),
            json!({ "net.core.somaxconn": 5 }),
            json!(["net.core.somaxconn"]),
        ] {
            assert_eq!(keys(&given).unwrap_err().code, Code::InvalidConfig, "{given}");
        }
    }

    #[test]
    fn with_a_list_only_what_it_matches_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("allowlist.conf");
        let one = |key: &str| vec![Sysctl { key: key.into(), value: "1".into() }];
        allowed(&one("net/core/somaxconn"), &list).unwrap();
        fs::write(&list, "# ours\n^net\\.ipv4\\.conf\\.[a-z0-9]*\\.rp_filter$\n\n^net/core/\n").unwrap();
        allowed(&one("net/ipv4/conf/eth0/rp_filter"), &list).unwrap();
        allowed(&one("net/core/somaxconn"), &list).unwrap();
        let refused = allowed(&one("net/ipv4/ip_forward"), &list).unwrap_err();
        assert!(refused.message.contains("net.ipv4.ip_forward") && refused.details.contains("allowlist"));
        fs::write(&list, "(").unwrap();
        assert!(
            allowed(&one("net/core/somaxconn"), &list).is_err(),
            "a list that cannot be read allows nothing"
        );
    }
}
