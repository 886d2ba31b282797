//! Nodes that write while etcd is killed, frozen, compacted and written to by others. The order comes from a seed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

use super::super::super::{CommitError, Store as _, Txn, Watch};
use super::super::Etcd;
use super::fixture::{Reader, Server, apart, eventually, open, settings};

/// One of several nodes, and what its reader believes.
struct Node {
    store: Etcd,
    directory: TempDir,
    watch: Watch,
    reader: Reader,
}

impl Node {
    fn begin(server: &Server, directory: TempDir) -> Self {
        let (mut store, _) = open(settings(vec![server.place()]), directory.path());
        let watch = store.watch().expect("watch");
        Self { store, directory, watch, reader: Reader::default() }
    }

    fn begin_again(self, server: &Server) -> Self {
        let Self { store, directory, .. } = self;
        drop(store);
        Self::begin(server, directory)
    }

    fn change(&mut self, random: &mut StdRng) {
        let key = format!("{}/{}", ["node", "k"][random.random_range(0..2)], random.random_range(0..9));
        let txn = match random.random_range(0..3) {
            0 => Txn::default().delete(&*key),
            _ => Txn::default().put(&*key, vec![random.random::<u8>()]),
        };
        match self.store.commit(&txn) {
            Ok(_) | Err(CommitError::Unavailable { .. } | CommitError::Unclear { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whatever happens to etcd and to the nodes, the batches of every reader lead to what etcd holds in the end.
#[test]
fn every_reader_ends_with_what_etcd_holds() {
    for seed in [1, 2] {
        apart(|| disorder(seed));
    }
}

fn disorder(seed: u64) {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut server = Server::start();
    let mut nodes: Vec<Node> =
        (0..2).map(|_| Node::begin(&server, TempDir::new().expect("a directory"))).collect();
    for _ in 0..10 {
        for _ in 0..random.random_range(0..12) {
            nodes[random.random_range(0..2)].change(random);
        }
        match random.random_range(0..6) {
            0 => server.restart(),
            1 => {
                server.kill();
                nodes[0].change(random);
                server.start_again();
            }
            2 => {
                server.freeze(true);
                nodes[1].change(random);
                server.freeze(false);
            }
            3 => {
                let node = nodes.remove(0);
                nodes.push(node.begin_again(&server));
            }
            4 => {
                // What was written last is the only thing that is not forgotten.
                let text = server.ctl(&["put", "netd/v1/k/other", "v", "--write-out=json"]);
                let answer: serde_json::Value = serde_json::from_str(&text).expect("json");
                server.ctl(&["compact", &answer["header"]["revision"].to_string()]);
            }
            _ => drop(server.ctl(&["del", "--prefix", "netd/v1/k/"])),
        }
        nodes.iter_mut().for_each(|node| node.reader.read(&node.watch));
    }
    // No node is away long enough now for its lease to end.
    for node in &mut nodes {
        eventually("writes go through", || node.store.commit(&Txn::default().put("end", &b"1"[..])).is_ok());
    }
    for node in &mut nodes {
        eventually(&format!("the reader believes what etcd holds (seed {seed})"), || {
            let loaded = node.store.load().expect("load").entries;
            let held: Vec<_> =
                loaded.into_iter().map(|entry| (entry.key.to_string(), entry.value.to_vec())).collect();
            node.reader.read(&node.watch);
            node.reader.entries.clone().into_iter().eq(held)
        });
        let revisions = node.reader.batches.iter().map(|batch| batch.revision);
        assert!(revisions.is_sorted_by(|one, next| one < next), "{seed}: a batch from the past");
    }
}
