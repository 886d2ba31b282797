//! The names this server answers, as plain data. The control side sends [`Change`]s; the serving thread owns the
//! tables and applies changes between two packets, so no lock is ever held while a query is answered.
//!
//! A *zone* is a set of names that are visible together (the caller makes one per network). A *view* is what one
//! listening socket pair sees: some zones in order, names of its own, and where unknown names are forwarded to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names one zone; stable over restarts of either process.
pub type ZoneId = Arc<str>;
/// Names one view; stable over restarts of either process.
pub type ViewId = Arc<str>;

/// One step from the table that is served to the table that is wanted. Applying a `Put` twice, or a `Drop` of what is
/// not there, changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Makes or replaces what `name` leads to in `zone`; makes the zone if it is new.
    PutName {
        zone: ZoneId,
        name: Name,
    },
    DropName {
        zone: ZoneId,
        name: Arc<str>,
    },
    /// Removes the zone with all its names.
    DropZone {
        zone: ZoneId,
    },
    /// Makes or replaces a view. Its sockets arrive beside the change, see [`crate::Server::apply`].
    PutView(View),
    DropView {
        view: ViewId,
    },
    /// The servers of the views that say [`Forward::Host`].
    PutHostServers {
        servers: Vec<SocketAddr>,
    },
}

/// What a name leads to. Names are held in lower case, relative, without the trailing dot; they may contain dots. A name
/// without anything is known all the same: every question for it is answered with no data, and none is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    pub name: Arc<str>,
    /// All addresses, in the order of joining; an answer rotates through those of the family asked for.
    pub addresses: Vec<IpAddr>,
    /// Of these addresses this name is the PTR name: a reverse query answers `name.suffix`.
    pub primary_for: Vec<IpAddr>,
    /// Where a service is to be had (`_http._tcp.web`); an answer rotates through them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub srv: Vec<Srv>,
    /// Another name for the same thing: answered as a CNAME and followed, in the view's tables or upstream. It is looked
    /// up as a client would write it, and no suffix is added. A name with an alias has nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Arc<str>>,
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Relative to the zone (answered with its suffix behind), or absolute with a dot at the end.
    pub target: Arc<str>,
}

impl Srv {
    /// The target as it is answered for the zone that is called `suffix`, without a dot at the end.
    pub fn full_target(&self, suffix: Option<&str>) -> String {
        match (self.target.strip_suffix('.'), suffix) {
            (Some(absolute), _) => absolute.into(),
            (None, Some(suffix)) => format!("{}.{suffix}", self.target),
            (None, None) => self.target.as_ref().into(),
        }
    }
}

/// What one sandbox (or any other client with a socket of its own) can see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub id: ViewId,
    /// Searched in this order; the first zone that has the name answers. `suffix` is the zone's own name: `web` and
    /// `web.suffix` both lead to the zone's `web`, and PTR answers end in it.
    pub zones: Vec<ViewZone>,
    /// Names only this view has (links). Searched before the zones.
    pub names: Vec<Name>,
    pub forward: Forward,
    /// Single labels are not forwarded but answered NODATA/NXDOMAIN at once (`ndots` above 0 was set on purpose).
    pub single_labels_are_local: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewZone {
    pub zone: ZoneId,
    pub suffix: Arc<str>,
}

/// Where a name goes that no table has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forward {
    /// Nowhere: SERVFAIL at once (all networks of the view are internal).
    Never,
    /// To the host's servers ([`Change::PutHostServers`]), from this process' own namespace.
    Host,
    /// To these servers, from the view's namespace, through the sockets that came with the view.
    Own { servers: Vec<SocketAddr> },
}

/// What a socket that comes beside a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SocketUse {
    /// Bound UDP socket, nonblocking: queries come in here.
    Udp,
    /// Listening TCP socket, nonblocking.
    Tcp,
    /// Unconnected UDP socket in the view's namespace, bound to port 0 of the family, for [`Forward::Own`].
    UpstreamUdp4,
    UpstreamUdp6,
    /// Fresh unconnected TCP socket in the view's namespace, for one truncated answer each.
    UpstreamTcp4,
    UpstreamTcp6,
}
