//! Puts what was known of a cluster's records into an etcd that has none of them: one that was lost and is begun anew.
//!
//! What is there already stays, so a restoration that was interrupted, or is done by two nodes, comes to the same end.
//! The cluster's id goes last: before it is there no node takes the store for the cluster's.

use super::super::{CLUSTER, CommitError, Entry, LIVING, Txn};
use super::client::{Client, Failure};
use super::commit::{self, MOST_OPERATIONS};
use super::mirror::Mirror;
use super::wire::TxnResponse;

pub(super) async fn put_back(client: &mut Client, known: &Mirror) -> Result<(), Failure> {
    let lasts =
        |entry: &&Entry| *entry.key != *CLUSTER && !LIVING.iter().any(|kind| entry.key.starts_with(kind));
    let entries: Vec<&Entry> = known.entries.values().filter(lasts).collect();
    for part in entries.chunks(MOST_OPERATIONS) {
        if make(client, part).await? {
            continue;
        }
        for one in part {
            make(client, &[one]).await?;
        }
    }
    if let Some(id) = known.entries.get(CLUSTER) {
        make(client, &[id]).await?;
    }
    let (_, id) = client.probe().await?;
    known.is_foreign(id.as_deref()).map_or(Ok(()), |why| Err(Failure::Foreign(why)))
}

/// Whether none of them was there.
async fn make(client: &mut Client, entries: &[&Entry]) -> Result<bool, Failure> {
    let txn = entries.iter().fold(Txn::default(), |txn, entry| {
        txn.expect_absent(entry.key.clone()).put(entry.key.clone(), entry.value.clone())
    });
    let response: TxnResponse = client.call("/etcdserverpb.KV/Txn", commit::request(&txn, 0)).await?;
    match commit::outcome(&txn, &response) {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict { .. }) => Ok(false),
        Err(error) => Err(Failure::Lost(error.to_string())),
    }
}
