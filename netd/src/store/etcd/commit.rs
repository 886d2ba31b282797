//! A transaction in etcd's words, and etcd's answer in the store's. Pure.

use super::super::{CommitError, Key, LIVING, Revision, Txn};
use super::prefixed;
use super::wire::{
    Compare, DeleteRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};

/// Checks and writes of one transaction, each: etcd's `--max-txn-ops` where nobody has changed it.
pub(crate) const MOST_OPERATIONS: usize = 128;

/// What an accepted transaction has done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub revision: Revision,
    /// Whether a watch will tell of it.
    pub told: bool,
}

/// A bigger transaction is refused rather than cut: its parts would not be one commit.
pub(super) fn check_size(txn: &Txn) -> Result<(), CommitError> {
    let operations = txn.checks().len().max(txn.writes().count());
    match operations {
        0..=MOST_OPERATIONS => Ok(()),
        _ => Err(CommitError::TooMany { operations, limit: MOST_OPERATIONS }),
    }
}

pub(super) fn request(txn: &Txn, lease: i64) -> TxnRequest {
    let compare = txn.checks().iter().map(|check| Compare {
        target: Compare::MOD_REVISION,
        key: prefixed(&check.key),
        mod_revision: Some(expected(check.revision)),
    });
    let success = txn.writes().map(|(key, value)| match value {
        Some(value) => {
            let lease = if LIVING.iter().any(|prefix| key.starts_with(prefix)) { lease } else { 0 };
            let put = PutRequest { key: prefixed(key), value: value.to_vec(), lease };
            RequestOp { put: Some(put), ..RequestOp::default() }
        }
        None => RequestOp { delete: Some(DeleteRequest { key: prefixed(key) }), ..RequestOp::default() },
    });
    // Refused, it tells at which revisions the keys are instead.
    let failure = txn.checks().iter().map(|check| {
        let range = RangeRequest { key: prefixed(&check.key), keys_only: true, ..RangeRequest::default() };
        RequestOp { range: Some(range), ..RequestOp::default() }
    });
    TxnRequest { compare: compare.collect(), success: success.collect(), failure: failure.collect() }
}

/// 0 is how etcd says that a key is absent; no key is at a revision below.
fn expected(revision: Option<Revision>) -> i64 {
    match revision {
        None => 0,
        Some(revision) => i64::try_from(revision).ok().filter(|revision| *revision > 0).unwrap_or(-1),
    }
}

pub(super) fn outcome(txn: &Txn, response: &TxnResponse) -> Result<Done, CommitError> {
    if !response.succeeded {
        return Err(conflict(txn, &response.responses));
    }
    let revision = response.header.as_ref().map_or(0, |header| super::revision(header.revision));
    let deleted = |op: &ResponseOp| op.delete.as_ref().is_some_and(|delete| delete.deleted > 0);
    let told = txn.writes().any(|(_, value)| value.is_some()) || response.responses.iter().any(deleted);
    Ok(Done { revision, told })
}

fn conflict(txn: &Txn, responses: &[ResponseOp]) -> CommitError {
    let found = |index: usize| -> Option<Revision> {
        let kvs = &responses.get(index)?.range.as_ref()?.kvs;
        kvs.first().map(|kv| super::revision(kv.mod_revision))
    };
    let differing = txn.checks().iter().enumerate().find(|(index, check)| found(*index) != check.revision);
    match differing {
        Some((index, check)) => {
            let (key, expected) = (Key::clone(&check.key), check.revision);
            CommitError::Conflict { key, expected, found: found(index) }
        }
        None => CommitError::Unclear { cause: "etcd refuses what it says is so".into() },
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Header, KeyValue, RangeResponse};
    use super::*;

    fn many(count: usize) -> Txn {
        (0..count).fold(Txn::default(), |txn, number| txn.put(format!("k/{number}"), &b"v"[..]))
    }

    #[test]
    fn the_size_that_etcd_takes_is_taken_and_one_more_refused_with_the_numbers() {
        check_size(&many(MOST_OPERATIONS)).expect("as much as goes");
        let text = check_size(&many(MOST_OPERATIONS + 1)).expect_err("too much").to_string();
        assert!(text.contains("129") && text.contains("128"), "{text}");
    }

    #[test]
    fn only_what_is_bound_to_the_node_carries_its_lease() {
        let txn = Txn::default().put("a", &b"1"[..]).put("node/b", &b"2"[..]).delete("node/c");
        let request = request(&txn, 7);
        let leases: Vec<_> = request
            .success
            .iter()
            .map(|op| op.put.as_ref().map(|put| (put.lease, put.key.clone())))
            .collect();
        assert_eq!(leases, [Some((0, prefixed("a"))), Some((7, prefixed("node/b"))), None]);
    }

    #[test]
    fn the_first_key_that_differs_is_told() {
        let at = |revision| ResponseOp {
            range: Some(RangeResponse {
                kvs: vec![KeyValue { mod_revision: revision, ..KeyValue::default() }],
                ..RangeResponse::default()
            }),
            ..ResponseOp::default()
        };
        let txn = Txn::default().expect("a", 5).expect("b", 6).expect_absent("c");
        let response = TxnResponse { responses: vec![at(5), at(9), at(2)], ..TxnResponse::default() };
        match outcome(&txn, &response) {
            Err(CommitError::Conflict { key, expected, found }) => {
                assert_eq!((&*key, expected, found), ("b", Some(6), Some(9)));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_delete_of_nothing_is_not_told() {
        let deleted = |deleted| TxnResponse {
            header: Some(Header { revision: 4, ..Header::default() }),
            succeeded: true,
            responses: vec![ResponseOp {
                delete: Some(super::super::wire::DeleteResponse { deleted }),
                ..ResponseOp::default()
            }],
        };
        let txn = Txn::default().delete("a");
        assert_eq!(outcome(&txn, &deleted(0)).expect("done"), Done { revision: 4, told: false });
        assert_eq!(outcome(&txn, &deleted(1)).expect("done"), Done { revision: 4, told: true });
    }
}
