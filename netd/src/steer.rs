//! How traffic for a published port is caught. Opens sockets in the host's namespace; who answers on them is the data
//! plane's business.
//!
//! * `bind`: a socket on the port. What a plain publish does.
//! * steering: what arrives for the port is led to one of four funnels (a family and a protocol each), whose sockets are
//!   elsewhere, so that the socket which a container runtime keeps on the port as a reservation does no harm. By
//!   `sk_lookup` (BPF), or by nftables' tproxy where there is no BPF. `holder` tells a reservation from a server.
//! * `vacancy`: published ports that nobody can answer for at the moment are refused by a rule; their sockets stay.
//! * `eastwest`: connections of sandboxes to services that do not come here at all, but go straight to a backend.
//!
//! And the other way round: `transparent` leads a backend's answers to the data plane when that has connected under its
//! client's address.

mod answered;
mod bind;
mod eastwest;
mod funnel;
mod holder;
mod rules;
mod steering;
mod transparent;
mod vacancy;

pub(crate) use bind::{bind, bind_ahead, is_clash};
pub(crate) use eastwest::{EastWest, KEY as EAST_WEST};
pub(crate) use holder::{Taken, holders};
pub(crate) use steering::{Moves, Steering};
pub(crate) use transparent::{Transparent, remove as remove_transparent};
pub(crate) use vacancy::Vacancy;
