//! What the client encodes the server decodes; what nobody would send is refused by name.

use proptest::prelude::*;

use super::*;
use crate::network::{self, CreateNetwork, ListParams, NetworkParams};
use crate::sandbox::{self, CreateSandbox, NetworkMode, RemoveParams};

fn there_and_back<V: Verb>(params: &V::Params) -> V::Params {
    let target = target::<V>(params).unwrap();
    let (path, query) =
        target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let template = V::PATH.split('/');
    let named = template
        .zip(path.split('/'))
        .filter_map(|(t, part)| Some((t.strip_prefix('{')?.strip_suffix('}')?, part)));
    super::params(named, query).unwrap()
}

#[test]
fn parameters_travel_in_path_and_query() {
    let remove = RemoveParams { name: "web".parse().unwrap(), force: true };
    assert_eq!(target::<sandbox::Remove>(&remove).unwrap(), "/v1/sandboxes/web?force=true");
    assert_eq!(there_and_back::<sandbox::Remove>(&remove), remove);

    let list = ListParams { filter: vec!["label=a=b c".parse().unwrap(), "name=x&y".parse().unwrap()] };
    assert_eq!(
        target::<network::List>(&list).unwrap(),
        "/v1/networks?filter=label%3Da%3Db%20c&filter=name%3Dx%26y"
    );
    assert_eq!(there_and_back::<network::List>(&list), list);
    assert_eq!(target::<network::List>(&ListParams::default()).unwrap(), "/v1/networks");
}

#[test]
fn wrong_parameters_name_the_field() {
    let refused = |path: &[(&str, &str)], query| {
        params::<RemoveParams>(path.iter().copied(), query).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&[("name", "web")], Some("force=maybe")),
        "force: \"maybe\" is neither true nor false"
    );
    assert_eq!(refused(&[("name", "web")], Some("force&force")), "force: it is given more than once");
    assert!(refused(&[("name", "web")], Some("forse=true")).contains("unknown field `forse`"));
    assert!(
        refused(&[("name", "a%2Fb")], None).starts_with("name: name or id \"a/b\": '/' may not be in it")
    );
    assert!(refused(&[("name", "a%")], None).contains("not well encoded"));
    assert!(refused(&[("name", "a%ff")], None).contains("not well encoded"));
    assert!(refused(&[("name", "web")], Some("name=other")).contains("name: it is given more than once"));
}

#[test]
fn a_wrong_body_names_the_field_the_value_and_the_remedy() {
    let refused = |json: &str| body::<CreateNetwork>(json.as_bytes()).unwrap_err();
    let error = refused(r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.1/8"}]}}"#);
    assert_eq!(error.field.as_deref(), Some("IPAM.Config[0].Subnet"));
    assert!(error.detail.contains("\"10.0.0.1/8\": host bits are set; write 10.0.0.0/8"), "{error}");
    let error = refused(r#"{"Name":"n","IPAM":{"Config":[{"Gateway":"10.0.0.256"}]}}"#);
    assert_eq!(error.field.as_deref(), Some("IPAM.Config[0].Gateway"));
    assert!(error.detail.contains("\"10.0.0.256\""), "{error}");
    assert!(refused(r#"{"Name":"n","Colour":1}"#).detail.contains("unknown field `Colour`"));
    assert_eq!(refused(r#"{"Name":7}"#).field.as_deref(), Some("Name"));
    assert!(refused("{}").detail.contains("missing field `Name`"));
    assert!(refused("").detail.contains("missing field `Name`"));
    assert!(refused(r#"{"Name":"n","Driver":"tunnel"}"#).detail.contains("expected `bridge`"));
    assert!(refused(r#"{"Name":"n"} {}"#).detail.contains("something follows"));
    assert!(refused(r#"{"Name":"n""#).detail.contains("EOF"));
    let deep = "[".repeat(100_000);
    assert!(refused(&deep).detail.len() < 300);
    for json in [r#"{"Name":"n","Publish":["8080:0"]}"#, r#"{"Name":"n","NetworkMode":"mesh"}"#] {
        let error = body::<CreateSandbox>(json.as_bytes()).unwrap_err();
        assert!(matches!(error.field.as_deref(), Some("Publish[0]" | "NetworkMode")), "{error}");
    }
}

#[test]
fn an_array_is_no_object_at_any_depth() {
    for (json, field) in [
        (r#"["n"]"#, None),
        (r#"{"Name":"n","IPAM":[[]]}"#, Some("IPAM")),
        (r#"{"Name":"n","IPAM":{"Config":[["10.0.0.0/8"]]}}"#, Some("IPAM.Config[0]")),
    ] {
        let error = body::<CreateNetwork>(json.as_bytes()).unwrap_err();
        assert_eq!(error.field.as_deref(), field, "{error}");
        assert!(error.detail.contains("invalid type: sequence"), "{error}");
    }
    body::<crate::Nothing>(b"[]").unwrap_err();
    body::<crate::Nothing>(b"null").unwrap_err();
}

#[test]
fn a_sandbox_is_asked_for_in_json() {
    let json =
        r#"{"Name":"web","Networks":[{"Network":"app","IPv4Address":"10.0.0.2"}],"Publish":["8080:80"]}"#;
    let wanted: CreateSandbox = body(json.as_bytes()).unwrap();
    assert_eq!(wanted.network_mode, NetworkMode::Bridge);
    assert_eq!(wanted.networks[0].ipv4_address, Some([10, 0, 0, 2].into()));
    assert_eq!(body::<CreateSandbox>(&encode(&wanted).unwrap()).unwrap(), wanted);
}

proptest! {
    #[test]
    fn every_name_survives_the_path(name in "[^/\\s\\p{Cc}]{1,64}") {
        let params = NetworkParams { name: name.parse().unwrap() };
        prop_assert_eq!(there_and_back::<network::Inspect>(&params), params);
    }

    #[test]
    fn no_input_breaks_the_decoder(path in ".{0,40}", query in ".{0,80}", json in ".{0,80}") {
        let _ = params::<RemoveParams>([("name", path.as_str())], Some(query.as_str()));
        let _ = params::<ListParams>([], Some(query.as_str()));
        let _ = body::<CreateSandbox>(json.as_bytes());
    }
}
