//! The tree against plain `jmt` over the value bytes themselves, and its refusals.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use jmt::storage::{LeafNode, Node, NodeKey, TreeReader};
use jmt::{JellyfishMerkleTree, KeyHash};
use newton_state::tree::{
    NODES, STALE_NODES, StagedVersion, TreeError, prove, root, stage, stage_genesis, write,
};
use newton_types::leaf::EMPTY_ROOT;
use newton_types::{B256, LeafKey, keccak256};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTableMetadata};

fn database() -> Database {
    Database::builder()
        .create_with_backend(InMemoryBackend::new())
        .unwrap()
}

#[allow(clippy::redundant_closure)]
fn commit(
    db: &Database,
    make: impl FnOnce(
        &redb::Table<'_, &'static [u8], &'static [u8]>,
    ) -> Result<StagedVersion, TreeError>,
) -> Result<B256, TreeError> {
    let txn = db.begin_write().unwrap();
    let staged = {
        let mut nodes = txn.open_table(NODES).unwrap();
        let mut stale = txn.open_table(STALE_NODES).unwrap();
        let staged = make(&nodes)?;
        write(&mut nodes, &mut stale, &staged)?;
        staged
    };
    txn.commit().unwrap();
    Ok(staged.root())
}

/// Plain `jmt` with `sha3`'s keccak, holding whole values.
#[derive(Default)]
struct Plain {
    nodes: RefCell<HashMap<NodeKey, Node>>,
    stale: Cell<usize>,
}

impl TreeReader for Plain {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        Ok(self.nodes.borrow().get(key).cloned())
    }
    fn get_value_option(&self, _: u64, _: KeyHash) -> anyhow::Result<Option<Vec<u8>>> {
        unreachable!("not asked for by updates")
    }
    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        unreachable!("not asked for by updates")
    }
}

impl Plain {
    fn put(&self, version: u64, values: &[(LeafKey, Vec<u8>)]) -> B256 {
        let tree = JellyfishMerkleTree::<_, sha3::Keccak256>::new(self);
        let values = values
            .iter()
            .map(|(k, v)| (KeyHash(k.0.0), Some(v.clone())));
        let (root, batch) = tree.put_value_set(values, version).unwrap();
        self.nodes.borrow_mut().extend(
            batch
                .node_batch
                .nodes()
                .iter()
                .map(|(k, n)| (k.clone(), n.clone())),
        );
        self.stale
            .set(self.stale.get() + batch.stale_node_index_batch.len());
        B256::from(root.0)
    }

    fn nodes_and_stale(&self) -> (u64, u64) {
        (self.nodes.borrow().len() as u64, self.stale.get() as u64)
    }
}

#[test]
fn roots_are_those_of_plain_jmt_over_the_bytes() {
    let db = database();
    let plain = Plain::default();
    let mut parent = commit(&db, |nodes| stage_genesis(nodes)).unwrap();
    assert_eq!(plain.put(0, &[]), parent);
    for version in 1..30u64 {
        let count = version * 7 % 13;
        let values: BTreeMap<LeafKey, Vec<u8>> = (0..count)
            .map(|i| {
                // Some keys come again with another value.
                let mut key = keccak256((version * i % 40).to_be_bytes());
                key.0[0] = 4 + (i % 5) as u8;
                // 32-byte values are the ones that the tree might take for hashes.
                let length = if i % 3 == 0 { 32 } else { i as usize * 11 };
                (LeafKey(key), vec![(version + i) as u8; length])
            })
            .collect();
        let values: Vec<_> = values.into_iter().collect();
        let hashes = values.iter().map(|(k, v)| (*k, keccak256(v))).collect();
        let ours = commit(&db, |nodes| stage(nodes, version - 1, parent, &hashes)).unwrap();
        assert_eq!(ours, plain.put(version, &values), "version {version}");
        parent = ours;
    }
}

/// Many leaves at once, below common prefixes of every length, new ones and known ones: as if they had come one by one, in
/// root, nodes written and nodes no longer needed.
#[test]
fn many_leaves_at_once_make_the_tree_that_one_by_one_makes() {
    let (db, plain) = (database(), Plain::default());
    let mut parent = commit(&db, |nodes| stage_genesis(nodes)).unwrap();
    plain.put(0, &[]);
    // `jmt` forgets that the root of the empty tree is needed no more; ours does not.
    plain.stale.set(1);
    let mut made = 0u64;
    for version in 1..12u64 {
        let values: BTreeMap<LeafKey, Vec<u8>> = (0..version * version * 7)
            .map(|i| {
                // A third are keys of earlier versions.
                let number = if i % 3 == 0 { i } else { made + i };
                let mut key = keccak256(number.to_be_bytes());
                // A common prefix of up to 20 nibbles.
                let depth = (number % 21) as usize;
                key.0[..depth / 2].fill(0x44);
                if depth % 2 == 1 {
                    key.0[depth / 2] = 0x40 | key.0[depth / 2] & 0x0f;
                }
                (LeafKey(key), (version * 1_000 + i).to_be_bytes().to_vec())
            })
            .collect();
        made += values.len() as u64;
        let values: Vec<_> = values.into_iter().collect();
        let hashes = values.iter().map(|(k, v)| (*k, keccak256(v))).collect();
        parent = commit(&db, |nodes| stage(nodes, version - 1, parent, &hashes)).unwrap();
        assert_eq!(parent, plain.put(version, &values), "version {version}");
        let txn = db.begin_read().unwrap();
        let nodes = txn.open_table(NODES).unwrap();
        let stale = txn.open_table(STALE_NODES).unwrap();
        assert_eq!(
            (nodes.len().unwrap(), stale.len().unwrap()),
            plain.nodes_and_stale(),
            "version {version}"
        );
        for (key, value) in &values {
            let (got, proof) = prove(&nodes, version, *key).unwrap();
            assert_eq!(got, Some(keccak256(value)));
            proof.verify(parent, *key, keccak256(value)).unwrap();
        }
    }
}

#[test]
fn a_missing_or_wrong_parent_is_refused() {
    let db = database();
    let leaves = BTreeMap::from([(LeafKey(B256::repeat_byte(4)), B256::repeat_byte(1))]);
    let missing = commit(&db, |nodes| stage(nodes, 0, EMPTY_ROOT, &leaves));
    assert!(matches!(
        missing,
        Err(TreeError::MissingRoot { version: 0 })
    ));
    commit(&db, |nodes| stage_genesis(nodes)).unwrap();
    assert!(matches!(
        commit(&db, |nodes| stage_genesis(nodes)),
        Err(TreeError::VersionExists { version: 0 })
    ));
    let wrong = commit(&db, |nodes| stage(nodes, 0, B256::ZERO, &leaves));
    assert!(matches!(
        wrong,
        Err(TreeError::WrongParent { version: 0, .. })
    ));
    let first = commit(&db, |nodes| stage(nodes, 0, EMPTY_ROOT, &leaves)).unwrap();
    // jmt would start from an empty tree here.
    let skipped = commit(&db, |nodes| stage(nodes, 2, first, &leaves));
    assert!(matches!(
        skipped,
        Err(TreeError::MissingRoot { version: 2 })
    ));
    let again = commit(&db, |nodes| stage(nodes, 0, EMPTY_ROOT, &leaves));
    assert!(matches!(
        again,
        Err(TreeError::VersionExists { version: 1 })
    ));
    let txn = db.begin_read().unwrap();
    let nodes = txn.open_table(NODES).unwrap();
    assert_eq!(root(&nodes, 1).unwrap(), Some(first));
    assert!(matches!(
        prove(&nodes, 2, LeafKey(B256::ZERO)),
        Err(TreeError::MissingRoot { version: 2 })
    ));
}
