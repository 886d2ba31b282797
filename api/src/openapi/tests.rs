//! The document names every verb, and every reference in it leads somewhere.

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_verb_is_in_it_with_its_parameters_and_errors() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    for declaration in verb::all() {
        let method = declaration.method.as_str().to_ascii_lowercase();
        let operation = &document["paths"][declaration.path][&method];
        assert_eq!(operation["operationId"], declaration.id);
        for name in declaration.path_parameters() {
            let parameters = operation["parameters"].as_array().unwrap();
            let found = parameters.iter().find(|p| p["name"] == name).expect(declaration.id);
            assert_eq!((&found["in"], &found["required"]), (&json!("path"), &json!(true)));
        }
        for code in declaration.errors {
            let codes = &operation["responses"][code.status().to_string()]["x-codes"];
            assert!(codes.as_array().unwrap().contains(&json!(code.as_str())), "{}", declaration.id);
        }
        assert_eq!(operation.get("requestBody").is_some(), declaration.method.has_body());
    }
}

#[test]
fn verbs_do_not_collide() {
    let all = verb::all();
    let ids: BTreeSet<&str> = all.iter().map(|d| d.id).collect();
    let routes: BTreeSet<(&str, &str)> = all.iter().map(|d| (d.method.as_str(), d.path)).collect();
    assert_eq!((ids.len(), routes.len()), (all.len(), all.len()));
}

#[test]
fn references_lead_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn requests_say_that_they_take_no_other_fields() {
    let document = document();
    for request in [
        "CreateNetwork",
        "CreateSandbox",
        "CreateService",
        "UpdateService",
        "ConnectSandbox",
        "LogFilter",
        "DownRequest",
    ] {
        assert_eq!(document["components"]["schemas"][request]["additionalProperties"], false, "{request}");
    }
}
