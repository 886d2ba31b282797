//! The container's side of the bridge's work that the daemon does not do: routes of the configuration beside the default
//! route.

use std::net::IpAddr;

use netd_api::sandbox::EndpointSettings;
use netd_sys::netlink::Rtnl;
use netd_sys::netlink::route::{self, Route};

use super::wanted::Wanted;
use crate::error::{Code, Failure, Result};
use crate::spec::Environment;

pub(super) fn routes(environment: &Environment, settings: &EndpointSettings, wanted: &Wanted) -> Result<()> {
    if wanted.routes.is_empty() {
        return Ok(());
    }
    let gateway = |text: &str| text.parse::<IpAddr>().ok();
    let (v4, v6) = (gateway(&settings.gateway), gateway(&settings.ipv6_gateway));
    let (mut rtnl, index) = look_inside(environment)?;
    let route = |one: &super::wanted::Route| {
        let own = if one.destination.is_ipv4() { v4 } else { v6 };
        let bare = Route::on_link(one.destination, index);
        let (gateway, table) = (one.gateway.or(own), one.table.unwrap_or(bare.table));
        route::replace(&Route { gateway, table, metric: one.metric, ..bare })
    };
    rtnl.transact(wanted.routes.iter().map(route).collect()).map_err(|error| Failure::of_kernel(&error))
}

/// The rest is the daemon's to look at.
pub(super) fn check(environment: &Environment, wanted: &Wanted) -> Result<()> {
    if wanted.routes.is_empty() {
        return Ok(());
    }
    let (mut rtnl, index) = look_inside(environment)?;
    let found = rtnl.routes().map_err(|error| Failure::of_kernel(&error))?;
    for one in &wanted.routes {
        let is_it = |route: &Route| route.destination == one.destination && route.link == Some(index);
        if !found.iter().any(is_it) {
            let message = format!("the route to {} is gone", one.destination);
            return Err(Failure::new(Code::Wrong, message, format!("in {}", environment.netns)));
        }
    }
    Ok(())
}

fn look_inside(environment: &Environment) -> Result<(Rtnl, u32)> {
    let netns = super::namespace(environment)?;
    let mut rtnl = Rtnl::open_in(&netns).map_err(|error| Failure::of_kernel(&error))?;
    let interface = &environment.interface;
    let found = rtnl.link(&**interface).map_err(|error| Failure::of_kernel(&error))?;
    let gone = || Failure::new(Code::Wrong, format!("the container's device {interface} is gone"), "");
    Ok((rtnl, found.ok_or_else(gone)?.index))
}
