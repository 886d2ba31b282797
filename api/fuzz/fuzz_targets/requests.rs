//! Everything a client of the socket can send before a request is believed: parameters, bodies and the values in them.
//! What is accepted has to mean the same when it is written and read again.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use netd_api::events::FollowParams;
use netd_api::network::{ConnectSandbox, CreateNetwork, ListParams};
use netd_api::sandbox::{CreateSandbox, PublishPort, RemoveParams, UnpublishPort};
use netd_api::service::{CreateService, DrainEndpoint, PublishSpec, UpdateService};
use netd_api::value::{
    AddHost, Affinity, BackendSpec, ExposeSpec, HealthSpec, LinkSpec, Mac, MemberSpec, PortSpec, PublishBy,
    SandboxName, ServiceName, ServicePortSpec, Span, Subnet, Timestamp,
};
use netd_api::wire;

fuzz_target!(|input: &[u8]| {
    body::<CreateNetwork>(input);
    body::<CreateSandbox>(input);
    body::<ConnectSandbox>(input);
    body::<PublishPort>(input);
    body::<UnpublishPort>(input);
    body::<CreateService>(input);
    body::<UpdateService>(input);
    body::<DrainEndpoint>(input);
    let Ok(text) = str::from_utf8(input) else { return };
    let _ = wire::params::<RemoveParams>([("name", text)], None);
    let _ = wire::params::<ListParams>([], Some(text));
    let _ = wire::params::<FollowParams>([], Some(text));
    value::<PortSpec>(text);
    value::<PublishBy>(text);
    value::<ExposeSpec>(text);
    value::<Subnet>(text);
    value::<Mac>(text);
    value::<AddHost>(text);
    value::<LinkSpec>(text);
    value::<SandboxName>(text);
    value::<Timestamp>(text);
    let _ = PublishSpec::parse(text);
    value::<ServiceName>(text);
    value::<ServicePortSpec>(text);
    value::<HealthSpec>(text);
    value::<Affinity>(text);
    value::<BackendSpec>(text);
    value::<MemberSpec>(text);
    value::<Span>(text);
});

fn body<B: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(input: &[u8]) {
    if let Ok(body) = wire::body::<B>(input) {
        let again = wire::encode(&body).expect("what was read can be written");
        assert_eq!(wire::body::<B>(&again).expect("what was written can be read"), body);
    }
}

fn value<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().expect("what was written can be read"), value);
    }
}
