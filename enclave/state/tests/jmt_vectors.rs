//! `tests/vectors/jmt.json` is what the tree makes today, and the verifier agrees with every line of it.
#![allow(clippy::unwrap_used)]

use newton_state::tree::{ProofVector, proof_vectors};
use newton_types::{B256, LeafKey};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/jmt.json");

/// With `NEWTON_BLESS=1` the file is written anew instead.
#[test]
fn vectors_are_reproduced() {
    let vectors = proof_vectors().unwrap();
    if std::env::var_os("NEWTON_BLESS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(PATH).parent().unwrap()).unwrap();
        let mut text = serde_json::to_string_pretty(&vectors).unwrap();
        text.push('\n');
        std::fs::write(PATH, text).unwrap();
    }
    let text = std::fs::read_to_string(PATH).unwrap();
    let stored: Vec<ProofVector> = serde_json::from_str(&text).unwrap();
    assert!(
        stored == vectors,
        "tests/vectors/jmt.json is not what the tree makes"
    );
}

#[test]
fn verifier_agrees_with_every_vector() {
    let vectors = proof_vectors().unwrap();
    for (i, v) in vectors.iter().enumerate() {
        let verdict = v.proof().verify(v.root, LeafKey(v.key), v.value_hash);
        assert_eq!(verdict.is_ok(), v.valid, "vector {i}: {verdict:?} {v:?}");
    }
    let count = |valid: bool, included: bool, neighbour: bool| {
        vectors
            .iter()
            .filter(|v| {
                v.valid == valid
                    && (v.value_hash != B256::ZERO) == included
                    && (v.neighbour_key != B256::ZERO) == neighbour
            })
            .count()
    };
    assert!(count(true, true, false) > 10, "inclusion");
    assert!(count(true, false, false) > 4, "absence by an empty place");
    assert!(count(true, false, true) > 4, "absence by another leaf");
    assert!(count(false, true, false) > 10 && count(false, false, true) > 10);
}
