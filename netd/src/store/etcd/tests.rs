//! The etcd store on real etcd: the shared suite, and what an outage, a compaction or a lost lease does to it.

mod disorder;
mod fixture;
mod foreign;

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::{CommitError, KeyChange, Revision, SharedStore, Snapshot, Store, StoreError, Txn, Watch};
use super::{Etcd, EtcdSettings, Identity, Login, Tls};
use fixture::{Certificates, Reader, Server, apart, eventually, open, settings};

/// A store whose directory goes with it.
struct Temporary {
    store: Etcd,
    _directory: TempDir,
}

impl Store for Temporary {
    fn load(&self) -> Result<Snapshot, StoreError> {
        self.store.load()
    }

    fn commit(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        self.store.commit(txn)
    }

    fn watch(&mut self) -> Result<Watch, StoreError> {
        self.store.watch()
    }
}

fn put(store: &mut Etcd, key: &str) -> Revision {
    store.commit(&Txn::default().put(key, &b"v"[..])).expect("a put")
}

#[test]
fn etcd_passes_the_suite() {
    apart(|| {
        let server = Server::start();
        super::super::suite::run(&|| {
            let directory = TempDir::new().expect("a directory");
            let (mut store, _) = open(settings(vec![server.place()]), directory.path());
            let entries = store.load().expect("load").entries;
            let clear = entries.into_iter().fold(Txn::default(), |txn, entry| txn.delete(entry.key));
            store.commit(&clear).expect("all can be removed");
            Box::new(Temporary { store, _directory: directory })
        });
    });
}

#[test]
fn a_watch_goes_on_where_it_was_when_etcd_comes_back() {
    apart(|| {
        let mut server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        let watch = store.watch().expect("watch");
        let mut reader = Reader::default();
        put(&mut store, "a");
        put(&mut store, "b");
        reader.read_until(&watch, &["a", "b"]);
        server.kill();
        eventually("the store knows", || !store.condition().connected);
        let began = Instant::now();
        match store.commit(&Txn::default().put("c", &b"v"[..])) {
            Err(error @ CommitError::Unavailable { .. }) => {
                let text = error.to_string();
                assert!(text.contains("etcd at 127.0.0.1:2379 is away: 127.0.0.1:2379: "), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(1), "an outage that is known is told at once");
        let condition = store.condition();
        assert!(!condition.connected && condition.cause.is_some(), "{condition:?}");
        server.start_again();
        server.ctl(&["put", "netd/v1/c", "v"]);
        server.ctl(&["del", "netd/v1/a"]);
        reader.read_until(&watch, &["b", "c"]);
        let condition = store.condition();
        assert!(condition.connected && condition.cause.is_none(), "{condition:?}");
        assert_eq!((condition.reconnects, condition.keys), (1, 2));
        let revision = put(&mut store, "d");
        reader.read(&watch);
        assert_eq!(reader.batches.last().map(|batch| batch.revision), Some(revision));
    });
}

#[test]
fn what_a_compaction_hides_is_told_as_a_difference() {
    apart(|| {
        let mut server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        let watch = store.watch().expect("watch");
        let mut reader = Reader::default();
        for key in ["a", "b", "c"] {
            put(&mut store, key);
        }
        reader.read_until(&watch, &["a", "b", "c"]);
        server.kill();
        eventually("the store knows", || !store.condition().connected);
        // On another port the history goes on without the store.
        let mut elsewhere = Server::of(server, 3379);
        elsewhere.ctl(&["del", "netd/v1/a"]);
        elsewhere.ctl(&["put", "netd/v1/b", "new"]);
        let text = elsewhere.ctl(&["put", "netd/v1/z", "v", "--write-out=json"]);
        let answer: serde_json::Value = serde_json::from_str(&text).expect("json");
        let revision = answer["header"]["revision"].as_u64().expect("a revision");
        elsewhere.ctl(&["compact", &revision.to_string()]);
        elsewhere.kill();
        let before = reader.batches.len();
        let _back = Server::of(elsewhere, 2379);
        reader.read_until(&watch, &["b", "c", "z"]);
        assert_eq!(reader.entries["b"], b"new");
        let batches = &reader.batches[before..];
        assert_eq!(batches.len(), 1, "{batches:?}");
        assert_eq!(batches[0].changes[0], KeyChange::Deleted { key: "a".into() });
        assert!(batches[0].revision >= revision);
    });
}

#[test]
fn what_is_leased_goes_with_a_node_that_is_cut_off_and_its_owner_is_told() {
    apart(|| {
        let server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let (mut store, woken) = open(settings(vec![server.place()]), directory.path());
        let txn = Txn::default().put("node/a", &b"1"[..]).put("member/a", &b"2"[..]);
        store.commit(&txn).expect("both");
        let life = store.condition().life;
        let watch = store.watch().expect("watch");
        let mut reader = Reader::default();
        reader.read_until(&watch, &["member/a", "node/a"]);
        // Longer than the lease: etcd comes back, and finds it overdue.
        server.freeze(true);
        eventually("the store knows", || !store.condition().connected);
        match store.commit(&txn) {
            Err(CommitError::Unavailable { .. } | CommitError::Unclear { .. }) => {}
            other => panic!("{other:?}"),
        }
        let frozen = Instant::now();
        eventually("the lease is overdue", || frozen.elapsed() > Duration::from_secs(3));
        server.freeze(false);
        let woken_before = woken.times();
        eventually("another life begins", || {
            let condition = store.condition();
            condition.connected && condition.life != life
        });
        assert!(woken.times() > woken_before, "its owner was not told");
        reader.read(&watch);
        assert_eq!(reader.keys(), ["member/a"]);
        store.commit(&txn).expect("under the new lease");
        reader.read_until(&watch, &["member/a", "node/a"]);
    });
}

#[test]
fn a_lease_outlives_a_restart_of_the_control_plane_and_ends_when_told_to() {
    apart(|| {
        let server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        store.commit(&Txn::default().put("node/a", &b"1"[..])).expect("a put");
        let lease = store.condition().life;
        drop(store);
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        eventually("it is there", || store.condition().connected);
        assert_eq!(store.condition().life, lease);
        assert_eq!(store.load().expect("load").entries.len(), 1);
        store.release().expect("it can be given back");
        assert_eq!(server.ctl(&["get", "--prefix", "netd/", "--keys-only"]).trim(), "");
        assert!(matches!(
            store.commit(&Txn::default().put("b", &b"1"[..])),
            Err(CommitError::Unavailable { .. })
        ));
    });
}

#[test]
fn a_node_that_dies_takes_what_is_leased_along() {
    apart(|| {
        let server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        store.commit(&Txn::default().put("node/a", &b"1"[..]).put("b", &b"1"[..])).expect("a put");
        drop(store);
        eventually("only the rest is left", || {
            server.ctl(&["get", "--prefix", "netd/", "--keys-only"]).trim() == "netd/v1/b"
        });
    });
}

#[test]
fn an_endpoint_where_nobody_listens_is_passed_by() {
    apart(|| {
        let server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let dead = "127.0.0.1:9".parse().expect("a place");
        let (mut store, _) = open(settings(vec![dead, server.place()]), directory.path());
        put(&mut store, "a");
        assert_eq!(store.condition().endpoint.as_deref(), Some("127.0.0.1:2379"));
    });
}

#[test]
fn without_etcd_a_node_begins_with_its_copy_and_takes_the_difference_later() {
    apart(|| {
        let mut server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        put(&mut store, "a");
        put(&mut store, "b");
        drop(store);
        server.ctl(&["del", "netd/v1/a"]);
        server.kill();
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        let watch = store.watch().expect("watch");
        assert!(!store.condition().connected);
        let mut reader = Reader::default();
        reader.read(&watch);
        assert_eq!((reader.keys(), reader.batches.len()), (vec!["a", "b"], 1));
        assert!(matches!(store.load(), Err(StoreError::Unavailable { .. })));
        server.start_again();
        reader.read_until(&watch, &["b"]);
    });
}

#[test]
fn another_etcd_in_the_place_of_the_first_is_told_as_a_difference() {
    apart(|| {
        let mut server = Server::start();
        let directory = TempDir::new().expect("a directory");
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        let watch = store.watch().expect("watch");
        let mut reader = Reader::default();
        for key in ["a", "b", "c", "d"] {
            put(&mut store, key);
        }
        reader.read_until(&watch, &["a", "b", "c", "d"]);
        server.kill();
        eventually("the store knows", || !store.condition().connected);
        let other = Server::start();
        reader.read_until(&watch, &[]);
        other.ctl(&["put", "netd/v1/e", "v"]);
        reader.read_until(&watch, &["e"]);
    });
}

#[test]
fn a_member_that_hangs_is_left_for_another_while_the_lease_holds() {
    apart(|| {
        let members = fixture::three();
        let directory = TempDir::new().expect("a directory");
        let places = members.iter().map(Server::place).collect();
        let lease = Duration::from_secs(5);
        let (mut store, _) = open(EtcdSettings { lease, ..settings(places) }, directory.path());
        let watch = store.watch().expect("watch");
        eventually("three members agree", || store.commit(&Txn::default().put("node/a", &b"1"[..])).is_ok());
        let life = store.condition().life;
        let asked = store.condition().endpoint.expect("one of them");
        let hung = members.iter().find(|member| *member.place().to_string() == *asked).expect("one of them");
        hung.freeze(true);
        eventually("another is asked", || {
            let condition = store.condition();
            condition.connected && condition.endpoint.is_some_and(|endpoint| endpoint != asked)
        });
        eventually("it takes writes", || store.commit(&Txn::default().put("b", &b"1"[..])).is_ok());
        assert_eq!(store.condition().life, life);
        Reader::default().read_until(&watch, &["b", "node/a"]);
    });
}

#[test]
fn etcd_is_asked_by_tls_and_only_if_it_is_the_one() {
    apart(|| {
        let certificates = Certificates::make();
        let server = Server::start_with(2379, "https", certificates.options());
        let directory = TempDir::new().expect("a directory");
        let identity =
            Identity { certificate: certificates.path("own.pem"), key: certificates.path("own.key") };
        let with = |ca: &str, identity: Option<Identity>| {
            let tls = Tls { ca: certificates.path(ca), identity };
            open(EtcdSettings { tls: Some(tls), ..settings(vec![server.place()]) }, directory.path()).0
        };
        let refusal = |mut store: Etcd| match store.commit(&Txn::default().put("a", &b"1"[..])) {
            Err(error @ CommitError::Unavailable { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        put(&mut with("ca.pem", Some(identity.clone())), "a");
        let stranger = with("stranger.pem", Some(identity));
        eventually("it is refused", || {
            !stranger.condition().connected && stranger.condition().cause.is_some()
        });
        let text = refusal(stranger);
        assert!(text.contains("certificate"), "{text}");
        let nobody = with("ca.pem", None);
        eventually("it is refused", || nobody.condition().cause.is_some());
        let plain = open(settings(vec![server.place()]), directory.path()).0;
        eventually("it is refused", || plain.condition().cause.is_some());
    });
}

#[test]
fn etcd_is_asked_in_the_name_of_a_user_whose_rights_are_enough() {
    apart(|| {
        let server = Server::start();
        for command in [
            "user add root:top --interactive=false",
            "user grant-role root root",
            "role add netd",
            "role grant-permission netd --prefix=true readwrite netd/v1/",
            "user add netd:s3cret --interactive=false",
            "user grant-role netd netd",
            "auth enable",
        ] {
            server.ctl(&command.split(' ').collect::<Vec<_>>());
        }
        let directory = TempDir::new().expect("a directory");
        let password_file = directory.path().join("password");
        std::fs::write(&password_file, "wrong\n").expect("it can be written");
        let login = Some(Login { user: "netd".into(), password_file: password_file.clone() });
        let (mut store, _) = open(EtcdSettings { login, ..settings(vec![server.place()]) }, directory.path());
        eventually("it is refused", || store.condition().cause.is_some());
        let text = store.condition().cause.expect("a cause").to_string();
        assert!(text.contains("authentication failed") && !text.contains("wrong"), "{text}");
        // A password that was mended is found without a restart.
        std::fs::write(&password_file, "s3cret\n").expect("it can be written");
        let watch = store.watch().expect("watch");
        eventually("it is let in", || store.condition().connected);
        put(&mut store, "node/a");
        // Every token is void when somebody changes users or roles.
        server.ctl(&["--user=root:top", "role", "add", "other"]);
        put(&mut store, "b");
        Reader::default().read_until(&watch, &["b", "node/a"]);
        server.ctl(&["--user=root:top", "role", "revoke-permission", "netd", "netd/v1/", "--prefix=true"]);
        match store.commit(&Txn::default().put("c", &b"1"[..])) {
            Err(CommitError::Refused { cause }) => assert!(cause.contains("permission denied"), "{cause}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn what_does_not_fit_into_one_answer_comes_in_several() {
    apart(|| {
        let server = Server::start_with(2379, "http", vec!["--max-request-bytes=3145728".into()]);
        // A busy machine takes its time over 20 MiB.
        let settings = |places| EtcdSettings { timeout: Duration::from_secs(20), ..settings(places) };
        let [first, second] = [(); 2].map(|()| TempDir::new().expect("a directory"));
        let (mut late, _) = open(settings(vec![server.place()]), first.path());
        put(&mut late, "a");
        drop(late);
        let (mut store, _) = open(settings(vec![server.place()]), second.path());
        let big = vec![7_u8; 1 << 20];
        for number in 0..20 {
            store.commit(&Txn::default().put(format!("big/{number}"), &big[..])).expect("a put");
        }
        for number in 0..12 {
            let txn =
                (0..100).fold(Txn::default(), |txn, key| txn.put(format!("k/{number}/{key}"), &b"v"[..]));
            store.commit(&txn).expect("a hundred puts");
        }
        // Loaded in pages, as of one revision.
        let loaded = store.load().expect("load").entries;
        assert_eq!(loaded.len(), 1 + 20 + 1200);
        // Caught up with by the watch, from where the copy is.
        server.freeze(true);
        let (mut late, _) = open(settings(vec![server.place()]), first.path());
        let watch = late.watch().expect("watch");
        server.freeze(false);
        let mut reader = Reader::default();
        eventually("all of it is told", || {
            reader.read(&watch);
            reader.entries.len() == loaded.len()
        });
        let sizes: Vec<_> = reader.batches.iter().map(|batch| batch.changes.len()).collect();
        assert_eq!(sizes, [&[1; 21][..], &[100; 12]].concat(), "one batch a commit");
        let too_big = Txn::default().put("too/big", vec![7_u8; 4 << 20]);
        match store.commit(&too_big) {
            Err(CommitError::Refused { cause }) => assert!(cause.contains("larger than max"), "{cause}"),
            other => panic!("{other:?}"),
        }
        put(&mut store, "still/there");
    });
}
