//! The OpenAPI 3.1 document, made of the declarations of all verbs.

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::error::{Code, Problem};
use crate::verb::{self, Answer, Declaration};

/// Made anew at each call: keep it.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for declaration in verb::all() {
        let path = paths.entry(declaration.path).or_insert_with(|| Value::Object(Map::new()));
        path[declaration.method.as_str().to_ascii_lowercase()] = operation(&declaration, &mut schemas);
    }
    let info = json!({
        "title": "netd",
        "version": env!("CARGO_PKG_VERSION"),
        "summary": "Container networks, names, published ports and balanced services",
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
    });
    json!({
        "openapi": "3.1.0",
        "info": info,
        "servers": [{ "url": "http://netd", "description": "The Unix socket, /run/netd/netd.sock" }],
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn operation(declaration: &Declaration, schemas: &mut SchemaGenerator) -> Value {
    let noun = declaration.id.split('.').next().unwrap_or_default();
    let mut operation = json!({
        "operationId": declaration.id,
        "summary": declaration.summary,
        "tags": [noun],
        "parameters": parameters(declaration, schemas),
        "responses": responses(declaration, schemas),
    });
    if let Some(body) = declaration.body {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": body(schemas) } } });
    }
    operation
}

fn parameters(declaration: &Declaration, schemas: &mut SchemaGenerator) -> Vec<Value> {
    let params = (declaration.params)(schemas).to_value();
    let in_path: Vec<&str> = declaration.path_parameters().collect();
    let parameter = |(name, schema): (&String, &Value)| {
        let is_path = in_path.contains(&name.as_str());
        json!({
            "name": name,
            "in": if is_path { "path" } else { "query" },
            "required": is_path,
            "schema": schema,
        })
    };
    params["properties"].as_object().into_iter().flatten().map(parameter).collect()
}

fn responses(declaration: &Declaration, schemas: &mut SchemaGenerator) -> Map<String, Value> {
    let mut success = |status: u16, content_type: &str| {
        let schema = (declaration.response)(schemas);
        let content = json!({ content_type: { "schema": schema } });
        (status.to_string(), json!({ "description": "Done", "content": content }))
    };
    let done = match declaration.answer {
        Answer::Json { status } => success(status, "application/json"),
        Answer::Text { content_type } => success(200, content_type),
        Answer::Lines => success(200, LINES),
        Answer::Nothing => ("204".into(), json!({ "description": "Done" })),
    };
    let problem = schemas.subschema_for::<Problem>();
    let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
    for code in declaration.errors.iter().chain(&[Code::Unavailable, Code::Kernel]) {
        by_status.entry(code.status()).or_default().push(*code);
    }
    let failures = by_status.into_iter().map(|(status, codes)| {
        let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        let response = json!({
            "description": format!("A problem with the code {}", names.join(" or ")),
            "x-codes": names,
            "content": { Problem::CONTENT_TYPE: { "schema": problem } },
        });
        (status.to_string(), response)
    });
    [done].into_iter().chain(failures).collect()
}

/// Content type of [`Answer::Lines`].
pub const LINES: &str = "application/x-ndjson";

#[cfg(test)]
mod tests;
