//! Settings of one device: asked for, found, written down, applied.

use netd_api::value::Mac;
use netd_sys::netlink::Rtnl;
use netd_sys::netlink::link::{self, Link};
use serde_json::{Map, Value};

use crate::error::{Code, Failure, Result};
use crate::plugin::chain::is_set;
use crate::spec::Node;

/// What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    queue: Option<u32>,
    promiscuous: Option<bool>,
    all_multicast: Option<bool>,
}

impl Settings {
    /// All but the MAC address, which has more than one place.
    pub(super) fn read(root: &Node<'_>) -> Result<Self> {
        let number = |key: &str| root.member(key)?.filter(is_set).map(|node| node.number()).transpose();
        let flag = |key: &str| root.member(key)?.map(|node| node.flag()).transpose();
        Ok(Self {
            mac: None,
            mtu: number("mtu")?,
            // A queue of no length is a setting, too.
            queue: root.member("txQLen")?.map(|node| node.number()).transpose()?,
            promiscuous: flag("promisc")?.filter(|on| *on),
            all_multicast: flag("allmulti")?,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the device has of those that are set here.
    pub(super) fn as_found(&self, link: &Link) -> Self {
        Self {
            mac: self.mac.and(link.mac),
            mtu: self.mtu.map(|_| link.mtu),
            queue: self.queue.map(|_| link.queue),
            promiscuous: self.promiscuous.map(|_| link.promiscuous),
            all_multicast: self.all_multicast.map(|_| link.all_multicast),
        }
    }

    pub(super) fn apply(&self, rtnl: &mut Rtnl, interface: &str) -> Result<()> {
        let mut ops = Vec::new();
        ops.extend(self.mac.map(|mac| link::mac(interface, mac)));
        ops.extend(self.mtu.map(|mtu| link::mtu(interface, mtu)));
        ops.extend(self.queue.map(|length| link::queue(interface, length)));
        ops.extend(self.promiscuous.map(|on| link::promiscuous(interface, on)));
        ops.extend(self.all_multicast.map(|on| link::all_multicast(interface, on)));
        rtnl.transact(ops).map_err(|error| Failure::of_kernel(&error))
    }

    pub(super) fn to_json(&self) -> Value {
        let mut members = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            members.extend(value.map(|value| (key.to_owned(), value)));
        };
        put("mac", self.mac.map(|mac| mac_text(mac).into()));
        put("mtu", self.mtu.map(Value::from));
        put("txQLen", self.queue.map(Value::from));
        put("promisc", self.promiscuous.map(Value::from));
        put("allmulti", self.all_multicast.map(Value::from));
        members.into()
    }

    /// What `to_json` has written.
    pub(super) fn from_json(saved: &Value) -> Self {
        let number = |key: &str| saved[key].as_u64().and_then(|number| u32::try_from(number).ok());
        Self {
            mac: saved["mac"].as_str().and_then(|mac| mac.parse::<Mac>().ok()).map(Mac::octets),
            mtu: number("mtu"),
            queue: number("txQLen"),
            promiscuous: saved["promisc"].as_bool(),
            all_multicast: saved["allmulti"].as_bool(),
        }
    }
}

pub(super) fn look(rtnl: &mut Rtnl, interface: &str) -> Result<Link> {
    let found = rtnl.link(interface).map_err(|error| Failure::of_kernel(&error))?;
    found.ok_or_else(|| {
        let details = "a plugin before this one should have made it";
        Failure::new(Code::InvalidConfig, format!("the container has no device {interface}"), details)
    })
}

pub(super) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
