//! The tree against plain `jmt` over the value bytes themselves, and its refusals.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use jmt::storage::{LeafNode, Node, NodeKey, TreeReader};
use jmt::{JellyfishMerkleTree, KeyHash};
use newton_state::tree::{
    NODES, STALE_NODES, StagedVersion, TreeError, prove, root, stage, stage_genesis, write,
};
use newton_types::leaf::EMPTY_ROOT;
use newton_types::{B256, LeafKey, keccak256};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase};

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
        B256::from(root.0)
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
