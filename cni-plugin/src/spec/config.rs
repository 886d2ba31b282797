//! The configuration on stdin. What every verb needs is read at once; what a single verb needs is read when it asks,
//! so that a DEL does not fail over a key that only ADD uses.

use std::path::{Path, PathBuf};

use netd_api::client::DEFAULT_SOCKET;
use netd_api::value::NetworkName;
use serde_json::{Map, Value};

use super::Version;
use super::identity::sandbox_name;
use super::node::Node;
use crate::error::{Code, Failure, Result};

#[derive(Debug)]
pub(crate) struct Config {
    pub version: Version,
    /// The network as the runtime knows it.
    pub name: String,
    /// The network as netd knows it.
    pub network: NetworkName,
    pub socket: PathBuf,
    pub spool: PathBuf,
    document: Value,
}

/// An attachment that GC is to leave: the container's sandbox, and its device there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Valid {
    pub sandbox: String,
    pub interface: String,
}

/// The daemon's network for sandboxes that name none.
pub(crate) const DEFAULT: &str = "bridge";

/// Where DEL leaves a note while the daemon is away, unless the key `spool` says otherwise.
const DEFAULT_SPOOL: &str = "/var/lib/netd/cni-spool";

impl Config {
    pub(crate) fn read(text: &[u8]) -> Result<Self> {
        let document: Value = serde_json::from_slice(text).map_err(|error| {
            Failure::new(Code::Decoding, "the configuration on stdin is not JSON", error.to_string())
        })?;
        let root = Node::root(&document);
        if !document.is_object() {
            return Err(Failure::new(Code::Decoding, "the configuration on stdin is not an object", ""));
        }
        let version = root.member("cniVersion")?.map(|node| node.text()).transpose()?;
        let version = Version::read(version.filter(|text| !text.is_empty()))?;
        let name = match root.member("name")? {
            Some(node) => node.text()?.to_owned(),
            None => String::new(),
        };
        is_name(&name)?;
        let network = match root.member("network")? {
            Some(node) => node.parse()?,
            None => name.parse().map_err(|error: netd_api::value::Invalid| {
                Failure::new(Code::InvalidConfig, "name is not valid", error.to_string())
            })?,
        };
        let socket = path(&root, "socket", DEFAULT_SOCKET)?;
        let spool = path(&root, "spool", DEFAULT_SPOOL)?;
        Ok(Self { version, name, network, socket, spool, document })
    }

    /// A configuration of a reference plugin may be called as netd's default network is, and means one of its own.
    pub(crate) fn leave_the_default_network(&mut self) -> Result<&Self> {
        if self.root().member("network")?.is_none() && *self.network == *DEFAULT {
            self.network = format!("cni-{DEFAULT}").parse().map_err(|error: netd_api::value::Invalid| {
                Failure::new(Code::InvalidConfig, "name is not valid", error.to_string())
            })?;
        }
        Ok(self)
    }

    pub(crate) fn root(&self) -> Node<'_> {
        Node::root(&self.document)
    }

    /// What the plugins before this one in the chain made, with all they said of it.
    pub(crate) fn prev_result(&self) -> Result<Option<&Map<String, Value>>> {
        self.root().member("prevResult")?.map(|node| node.object()).transpose()
    }

    /// What everything that is attached for this network is marked with.
    pub(crate) fn owner(&self) -> String {
        format!("cni:{}", self.name)
    }

    /// `None`: the runtime has not said, which is not the same as none. The second key is what runtimes sent before
    /// the specification settled on the first.
    pub(crate) fn valid_attachments(&self) -> Result<Option<Vec<Valid>>> {
        let root = self.root();
        let list = match root.member("cni.dev/valid-attachments")? {
            Some(list) => list,
            None => match root.member("cni.dev/attachments")? {
                Some(list) => list,
                None => return Ok(None),
            },
        };
        let one = |node: Node<'_>| {
            let text = |key: &str| match node.member(key)? {
                Some(text) => Ok(text.text()?.to_owned()),
                None => Err(node.invalid(&format!("it has no {key}"))),
            };
            let sandbox = sandbox_name(&text("containerID")?)?.to_string();
            Ok(Valid { sandbox, interface: text("ifname")? })
        };
        list.items()?.map(one).collect::<Result<_>>().map(Some)
    }
}

fn path(root: &Node<'_>, key: &str, default: &str) -> Result<PathBuf> {
    let Some(node) = root.member(key)? else { return Ok(default.into()) };
    let path = Path::new(node.text()?);
    if path.is_absolute() { Ok(path.into()) } else { Err(node.invalid(&"it is not an absolute path")) }
}

fn is_name(name: &str) -> Result<()> {
    let refused =
        |message: &str| Err(Failure::new(Code::InvalidConfig, message, format!("name is {name:?}")));
    if name.is_empty() {
        return refused("the network's name is missing");
    }
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return refused(
            "the network's name may have letters, digits, '_', '.' and '-', a letter or digit first",
        );
    }
    Ok(())
}
