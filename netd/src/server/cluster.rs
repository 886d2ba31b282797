//! Handlers of the noun cluster.

use netd_api::cluster::Restore;
use netd_api::{ApiError, Nothing};

use super::route::Router;
use crate::manager;

pub(super) fn routes(router: &mut Router) {
    router.on(Restore, async |app, _, _| {
        let asked = app.call(|world| manager::restore_cluster(world)).await?;
        if let Err(cause) = asked.answer().await {
            let detail = format!("the cluster's records are not restored: {cause}");
            let remedy = "where etcd has another cluster's records, delete its keys under netd/v1/ first";
            return Err(ApiError::conflict(detail).remedy(remedy).into());
        }
        Ok(Nothing {})
    });
}
