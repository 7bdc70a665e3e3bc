//! redb itself on the store: random transactions against a map, killed at random points of what reached the host.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{Random, open, open_with, small};
use newton_pages::testing::{MemoryDevice, Operation, apply};
use newton_pages::{Options, PAGE_BYTES, PageStore};
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");

type Model = BTreeMap<u64, Vec<u8>>;

fn database(store: &PageStore) -> Database {
    Builder::new()
        .set_cache_size(64 * 1024)
        .create_with_backend(store.clone())
        .unwrap()
}

fn transaction(db: &Database, random: &mut Random, model: &mut Model, abort: bool) {
    let mut write = db.begin_write().unwrap();
    write.set_quick_repair(random.below(2) == 0);
    let mut next = model.clone();
    {
        let mut table = write.open_table(TABLE).unwrap();
        for _ in 0..random.below(30) {
            let key = random.below(60);
            if random.below(4) == 0 {
                table.remove(key).unwrap();
                next.remove(&key);
            } else {
                let longest = if random.below(8) == 0 { 30_000 } else { 300 };
                let len = random.below(longest) as usize;
                let value = vec![random.next() as u8; len];
                table.insert(key, value.as_slice()).unwrap();
                next.insert(key, value);
            }
        }
    }
    if abort {
        write.abort().unwrap();
    } else {
        write.commit().unwrap();
        *model = next;
    }
}

fn read(db: &Database) -> Model {
    let read = db.begin_read().unwrap();
    match read.open_table(TABLE) {
        Ok(table) => {
            let model: Model = table
                .iter()
                .unwrap()
                .map(|r| r.map(|(k, v)| (k.value(), v.value().to_vec())).unwrap())
                .collect();
            assert_eq!(table.len().unwrap(), model.len() as u64);
            model
        }
        Err(redb::TableError::TableDoesNotExist(_)) => Model::new(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn random_transactions_match_a_map_and_survive_reopening() {
    for seed in 0..4 {
        let mut random = Random(seed);
        let device = MemoryDevice::default();
        let options = if seed % 2 == 0 {
            small()
        } else {
            Options::default()
        };
        let mut model = Model::new();
        for _ in 0..6 {
            let store = open_with(&device, options).unwrap();
            let mut db = database(&store);
            assert_eq!(read(&db), model);
            for _ in 0..8 {
                let abort = random.below(5) == 0;
                transaction(&db, &mut random, &mut model, abort);
            }
            assert_eq!(read(&db), model);
            assert!(db.check_integrity().unwrap());
            assert!(store.last_fault().is_none());
            if random.below(3) == 0 {
                db.compact().unwrap();
                assert_eq!(read(&db), model);
            }
        }
    }
}

#[test]
fn killed_anywhere_redb_comes_back_at_a_commit() {
    for seed in 10..13 {
        let mut random = Random(seed);
        let device = MemoryDevice::default();
        let options = if seed % 2 == 0 {
            small()
        } else {
            Options::default()
        };
        let store = open_with(&device, options).unwrap();
        let db = database(&store);
        let mut model = Model::new();
        transaction(&db, &mut random, &mut model, false);
        let before = device.bytes();
        device.record();
        // What is committed once so many operations have reached the host.
        let mut commits = vec![(0, model.clone())];
        let mut log: Vec<Operation> = Vec::new();
        for _ in 0..8 {
            transaction(&db, &mut random, &mut model, false);
            log.extend(device.recorded());
            device.record();
            commits.push((log.len(), model.clone()));
        }
        for _ in 0..60 {
            let kill = random.below(log.len() as u64 + 1) as usize;
            let flushed = log[..kill]
                .iter()
                .rposition(|o| *o == Operation::Flush)
                .map_or(0, |i| i + 1);
            let mut file = before.clone();
            log[..flushed].iter().for_each(|o| apply(&mut file, o));
            // Of what was not flushed, any part.
            log[flushed..kill]
                .iter()
                .filter(|_| random.below(2) == 0)
                .for_each(|o| apply(&mut file, o));
            let acknowledged = commits.iter().rposition(|(at, _)| *at <= kill).unwrap();
            let device = MemoryDevice::new(file);
            let found = read(&database(&open(&device).unwrap()));
            let allowed = &commits[acknowledged..(acknowledged + 2).min(commits.len())];
            let at = allowed.iter().position(|(_, model)| *model == found);
            assert!(
                at.is_some(),
                "seed {seed}, killed at {kill} of {}: no commit",
                log.len()
            );
        }
    }
}

/// Flips a bit of every slot but the superblocks'.
fn damage(file: &mut [u8]) {
    for slot in file[4 * PAGE_BYTES..].chunks_mut(PAGE_BYTES) {
        slot[17] ^= 1;
    }
}

#[test]
fn damage_reaches_redbs_user_with_the_pages_name() {
    let device = MemoryDevice::default();
    let store = open(&device).unwrap();
    let db = database(&store);
    let mut model = Model::new();
    let mut random = Random(5);
    for _ in 0..5 {
        transaction(&db, &mut random, &mut model, false);
    }
    drop(db);
    drop(store);
    device.tamper(|bytes| damage(bytes));
    let error = open(&device).err().unwrap();
    assert!(
        matches!(error, newton_pages::PageError::MapCorrupt { .. }),
        "{error}"
    );

    let device = MemoryDevice::default();
    let store = open_with(&device, small()).unwrap();
    let db = database(&store);
    for _ in 0..5 {
        transaction(&db, &mut random, &mut model, false);
    }
    device.tamper(|bytes| damage(bytes));
    let failed = (|| -> Result<(), redb::Error> {
        let read = db.begin_read()?;
        let table = read.open_table(TABLE)?;
        for item in table.iter()? {
            item?;
        }
        Ok(())
    })();
    assert!(failed.is_err());
    let fault = store.last_fault().unwrap();
    assert!(fault.is_integrity(), "{fault}");
    assert!(
        fault.to_string().contains("page") && fault.to_string().contains("slot"),
        "{fault}"
    );
}
