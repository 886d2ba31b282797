//! Everything a client of the socket can send before a request is believed: parameters, bodies and the values in them.
//! What is accepted has to mean the same when it is written and read again.
#![no_main]

mod seeds;

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use netd_api::service::PublishSpec;
use netd_api::value::{
    AddHost, Affinity, BackendSpec, ExposeSpec, HealthSpec, LinkSpec, Mac, MemberSpec, PortSpec, PublishBy,
    SandboxName, ServiceName, ServicePortSpec, Span, Subnet, Timestamp,
};
use netd_api::{Verb, cluster, dns, events, network, node, sandbox, service, stats, system, wire};

fuzz_target!(init: netd_seeds::plant(seeds::ALL), |input: &[u8]| {
    networks(input);
    sandboxes(input);
    services(input);
    verb::<cluster::Restore>(input);
    verb::<node::Remove>(input);
    verb::<stats::Read>(input);
    verb::<dns::Dump>(input);
    verb::<events::Follow>(input);
    verb::<system::SetLog>(input);
    if let Ok(text) = str::from_utf8(input) {
        values(text);
    }
});

fn networks(input: &[u8]) {
    verb::<network::Create>(input);
    verb::<network::List>(input);
    verb::<network::Connect>(input);
    verb::<network::Disconnect>(input);
    verb::<network::Update>(input);
    verb::<network::UpdateEndpoint>(input);
}

fn sandboxes(input: &[u8]) {
    verb::<sandbox::Create>(input);
    verb::<sandbox::Remove>(input);
    verb::<sandbox::Leave>(input);
    verb::<sandbox::Publish>(input);
    verb::<sandbox::Unpublish>(input);
}

fn services(input: &[u8]) {
    verb::<service::Create>(input);
    verb::<service::Update>(input);
    verb::<service::Drain>(input);
}

fn values(text: &str) {
    value::<PortSpec>(text);
    value::<PublishBy>(text);
    value::<ExposeSpec>(text);
    value::<Subnet>(text);
    value::<Mac>(text);
    value::<AddHost>(text);
    value::<LinkSpec>(text);
    value::<SandboxName>(text);
    value::<Timestamp>(text);
    value::<ServiceName>(text);
    value::<ServicePortSpec>(text);
    value::<HealthSpec>(text);
    value::<Affinity>(text);
    value::<BackendSpec>(text);
    value::<MemberSpec>(text);
    value::<Span>(text);
    let _ = PublishSpec::parse(text);
}

/// As the body, and as the query string with what is before a `?` in the path.
fn verb<V: Verb<Params: PartialEq + Debug, Body: PartialEq + Debug>>(input: &[u8]) {
    if let Ok(body) = wire::body::<V::Body>(input) {
        let again = wire::encode(&body).expect("what was read can be written");
        assert_eq!(wire::body::<V::Body>(&again).expect("what was written can be read"), body);
    }
    let Ok(text) = str::from_utf8(input) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let named = V::PATH.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let Ok(params) = wire::params::<V::Params>(named.map(|name| (name, path)), Some(query)) else { return };
    let target = wire::target::<V>(&params).expect("what was read can be written");
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let parts = V::PATH.split('/').zip(path.split('/'));
    let named = parts.filter_map(|(name, part)| Some((name.strip_prefix('{')?.strip_suffix('}')?, part)));
    let again = wire::params::<V::Params>(named, Some(query)).expect("what was written can be read");
    assert_eq!(again, params);
}

fn value<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().expect("what was written can be read"), value);
    }
}
