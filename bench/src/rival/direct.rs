//! The bare road: the client goes to the container's own address, routed by the node, nothing rewritten.

use crate::figures::DIRECT;
use crate::programs::{BULK, ECHO, HTTP, SINK};
use crate::rival::{Contender, Doors};
use crate::site::Container;

pub(crate) fn start(container: &Container) -> Contender {
    let doors = Doors {
        bulk: container.at(BULK),
        http: container.at(HTTP),
        echo: container.at(ECHO),
        sink: container.at(SINK),
    };
    Contender { name: DIRECT, doors, relays: Vec::new(), servers: Vec::new() }
}
