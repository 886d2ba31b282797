//! How it is with the cluster, as `status`, `doctor` and the metrics tell it.

use std::sync::Arc;
use std::time::Duration;

use netd_api::system::ClusterStatus;

use super::super::World;
use super::super::books::{Standing, name_taken};
use crate::model::{Availability, Member};
use crate::store::{Condition, FOREIGN_REMEDY, Revision};

pub(crate) struct ClusterView {
    location: String,
    condition: Condition,
    /// Why the store is out of reach, if it is.
    pub outage: Option<String>,
    standing: Standing,
    /// Why this node is no member now, and what can be done.
    pub trouble: Option<(String, String)>,
    pub owed: Option<String>,
    pub disputed: Vec<String>,
    pub refused: Vec<String>,
    pub members: usize,
    pub alive: Vec<String>,
    settled: Option<Duration>,
}

impl World {
    pub(crate) fn cluster_view(&self) -> Option<ClusterView> {
        let cluster = self.books.cluster()?;
        let (condition, model) = (cluster.condition(), self.model());
        let cause = || condition.cause.as_deref().unwrap_or("it has not answered yet").to_owned();
        let here = &model.here;
        let trouble = match cluster.standing() {
            _ if condition.is_foreign => Some((cause(), FOREIGN_REMEDY.to_owned())),
            Standing::Member | Standing::Apart => None,
            Standing::NameTaken(other) => {
                Some((name_taken(other), "give this node another --name, or end that one".to_owned()))
            }
            Standing::Removed | Standing::Stale => {
                let what =
                    format!("node {here} was removed from the cluster: it has no place on its networks");
                Some((what, format!("`netd node activate {here}`")))
            }
        };
        let known = |member: &&Arc<Member>| member.availability != Availability::Removed;
        Some(ClusterView {
            location: self.config.cluster.as_ref().map(|c| c.etcd.names()).unwrap_or_default(),
            outage: (!condition.connected).then(cause),
            standing: cluster.standing().clone(),
            trouble,
            owed: self.owed.clone(),
            disputed: cluster.disputed().map(ToOwned::to_owned).collect(),
            refused: self.books.records().refused().values().cloned().collect(),
            members: model.members.values().filter(known).count(),
            alive: model.nodes.keys().map(ToString::to_string).collect(),
            settled: cluster.settled().map(|then| then.elapsed()),
            condition,
        })
    }
}

impl ClusterView {
    pub(crate) fn is_foreign(&self) -> bool {
        self.condition.is_foreign
    }

    /// `served` is up to where the data plane has the cluster's store.
    pub(crate) fn shown(self, served: Revision) -> ClusterStatus {
        let standing = match self.standing {
            _ if self.condition.is_foreign => "estranged",
            Standing::Member => "member",
            Standing::Apart => "apart",
            Standing::Removed | Standing::Stale => "removed",
            Standing::NameTaken(_) => "name-taken",
        };
        ClusterStatus {
            store: "etcd".into(),
            location: self.location,
            connected: self.outage.is_none(),
            since: self.condition.since.into(),
            cause: self.outage,
            endpoint: self.condition.endpoint.as_deref().map(ToOwned::to_owned),
            reconnects: self.condition.reconnects,
            keys: u64::try_from(self.condition.keys).unwrap_or(u64::MAX),
            revision: self.condition.told,
            served: served.min(self.condition.told),
            standing: standing.into(),
            members: u64::try_from(self.members).unwrap_or(u64::MAX),
            alive: self.alive,
            settled_seconds_ago: self.settled.map(|ago| ago.as_secs()),
            owed: self.owed,
        }
    }
}
