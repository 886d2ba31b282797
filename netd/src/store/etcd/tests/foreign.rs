//! An etcd in the place of the one that a node knew: without its cluster's records, or with another's.

use tempfile::TempDir;

use super::super::super::{CLUSTER, CommitError, SharedStore as _, Store as _, Txn};
use super::super::{Asked, Etcd};
use super::fixture::{Reader, Server, apart, eventually, open, settings};

fn found(store: &mut Etcd) {
    let txn = Txn::default().put(CLUSTER, &b"one"[..]).put("network/a", &b"n"[..]).put("node/x", &b"x"[..]);
    store.commit(&txn).expect("a commit");
    for part in 0..3 {
        let leases = (0..100).map(|number| format!("lease/a/{part}/{number:03}"));
        store.commit(&leases.fold(Txn::default(), |txn, key| txn.put(key, &b"l"[..]))).expect("a commit");
    }
}

fn answered(asked: Asked) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(asked.answer())
}

fn netds_keys(server: &Server) -> String {
    server.ctl(&["get", "--prefix", "--keys-only", "netd/v1/"]).trim().to_owned()
}

#[test]
fn an_etcd_without_the_clusters_records_is_left_alone_until_they_are_asked_back() {
    apart(|| {
        let mut server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        let watch = store.watch().expect("watch");
        let mut reader = Reader::default();
        found(&mut store);
        assert!(answered(store.restore()).expect_err("nothing is lost").contains("nothing to restore"));
        assert_eq!(answered(store.ask()), Ok(()));
        server.kill();
        eventually("the store knows", || !store.condition().connected);
        assert!(answered(store.ask()).is_err());
        let other = Server::start();
        eventually("the other is known for what it is", || store.condition().is_foreign);
        reader.read(&watch);
        assert_eq!(reader.entries.len(), 303, "all that was known is believed in");
        let refused =
            store.commit(&Txn::default().put("network/b", &b"n"[..])).expect_err("nowhere to write");
        assert!(
            matches!(refused, CommitError::Unavailable { .. }) && refused.to_string().contains("none of")
        );
        assert_eq!(netds_keys(&other), "");
        // Another process of the same node knows it from the file.
        drop((store, watch));
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        let watch = store.watch().expect("watch");
        eventually("and it, too", || store.condition().is_foreign);
        // A node that had begun to put them back, and ended on the way.
        other.ctl(&["put", "netd/v1/lease/a/0/007", "l"]);
        answered(store.restore()).expect("it is put back");
        eventually("it is the cluster's", || store.condition().connected && !store.condition().is_foreign);
        let mut reader = Reader::default();
        eventually("what lived is gone, all else is there", || {
            reader.read(&watch);
            reader.entries.len() == 302 && !reader.entries.contains_key("node/x")
        });
        store.commit(&Txn::default().put("network/b", &b"n"[..])).expect("a commit");
        // All keys are deleted under its eyes.
        other.ctl(&["del", "--prefix", "netd/v1/"]);
        eventually("it is nobody's again", || store.condition().is_foreign);
        other.ctl(&["put", "netd/v1/cluster/id", "two"]);
        eventually("it is somebody else's", || {
            store.condition().cause.is_some_and(|cause| cause.contains("another cluster"))
        });
        assert!(answered(store.restore()).expect_err("it is not overwritten").contains("another cluster"));
        assert_eq!(netds_keys(&other), "netd/v1/cluster/id");
        other.ctl(&["put", "netd/v1/cluster/id", "one"]);
        reader.read_until(&watch, &["cluster/id"]);
    });
}
