//! Enclaves that come late: from events and DA alone, from a peer's snapshot and deltas, and past peers that lie.

use alloy::primitives::{B256, keccak256};
use newton_api::RpcError;
use newton_da_store::Faults;
use newton_e2e::{
    Member, World,
    admission::KeptShares,
    enclave::Enclave,
    hostile::{Answer, Hostile},
    leaves, network, policy,
    run::{self, Summary},
};
use newton_types::{Namespace, rpc::ErrorName};
use serde_json::{Value, json};

use super::{
    operators::{PATIENCE, at, commit, next_commit, source, wait_leaf},
    say,
};

type Commit = (u64, B256);

/// One operator with five commits; three that come late.
pub async fn latecomers(world: &World) {
    let da_store = world.da_store.as_ref().unwrap();
    let (first, shares) = run::admit(world, &mut Summary::default(), &say)
        .await
        .unwrap();
    let one = commit(world, &first, "one").await;
    let two = commit(world, &first, "two").await;
    // No rule, so nothing that could be an entrypoint: it is rejected, and its commit writes nothing.
    let bad = b"package bad\n";
    policy::register_rego(&world.chain, &world.da, bad, "bad.allow")
        .await
        .unwrap();
    let rejected = next_commit(world, &first, two.0).await;
    assert_eq!(rejected.1, two.1);
    let three = commit(world, &first, "three").await;
    let last = commit(world, &first, "four").await;
    let hash = |name: &str| keccak256(source(name));
    network::all_final(world, &[&first], PATIENCE)
        .await
        .unwrap();
    say("five commits, one of them of a rejected source");

    let (alone, enclave) = newcomer(world, 1, Vec::new(), &shares).await;
    for (sequence, root) in [one, two, rejected, three, last] {
        at(&enclave, sequence, root).await;
    }
    for name in ["one", "two", "three", "four"] {
        wait_leaf(world, &enclave, hash(name)).await;
    }
    say("without any peer: the committed root from events and DA alone");
    alone.shim.stop().await;

    da_store.set_faults(Faults {
        get_status: Some(500),
        ..Faults::default()
    });
    by_snapshot_and_deltas(world, &shares, [two, rejected, last]).await;
    past_peers_that_lie(world, &shares, [two, rejected, last]).await;
}

/// Two peers keep all but an older snapshot to themselves; later one of them gives its deltas, and DA nothing all the while. What is
/// rejected has bytes that no peer serves, so there is no other way.
async fn by_snapshot_and_deltas(
    world: &World,
    shares: &KeptShares,
    [two, rejected, last]: [Commit; 3],
) {
    let refuse = |_: &Value, _: Answer| Err(RpcError::new(ErrorName::NotFound, "not for you"));
    let withholding = older_snapshot(world, two.0)
        .await
        .answering("newt_getDelta", refuse);
    let better = Hostile::start(world.shim.api_address())
        .await
        .unwrap()
        .answering("newt_getSnapshot", refuse)
        .answering("newt_getDelta", refuse);
    let both = [&withholding, &better];
    let peers = both.map(Hostile::address).to_vec();
    let (member, enclave) = newcomer(world, 2, peers, shares).await;
    let stuck = noted(&member, &enclave, &both).await;
    assert_eq!(stuck["sequence_no"], json!(two.0), "{stuck}");
    assert_eq!(stuck["state_root"], json!(two.1));
    let withheld = note(&enclave, &withholding.address()).await.unwrap();
    let expected = format!("commit {} by its delta", rejected.0);
    assert!(
        withheld.contains(&expected) && withheld.contains("not for you"),
        "{withheld}"
    );
    say("a snapshot of an older commit, and nothing behind it: it stands there");

    let snapshots = better.asked("newt_getSnapshot").len();
    better.be_honest();
    at(&enclave, last.0, last.1).await;
    for name in ["one", "two", "three", "four"] {
        wait_leaf(world, &enclave, keccak256(source(name))).await;
    }
    // The commits behind the rejected one may as well be replayed, once their bytes were had from a peer.
    let asked = better.asked("newt_getDelta");
    assert!(asked.iter().any(|p| p["sequence_no"] == json!(rejected.0)));
    assert_eq!(better.asked("newt_getSnapshot").len(), snapshots);
    say("by a delta of another peer it goes on to the root while it runs, and DA gives nothing");
    member.shim.stop().await;
}

/// A tampered snapshot, then a tampered delta: neither is taken, and nothing of them served. DA and events lead on.
async fn past_peers_that_lie(
    world: &World,
    shares: &KeptShares,
    [two, rejected, last]: [Commit; 3],
) {
    let lying = Hostile::start(world.shim.api_address())
        .await
        .unwrap()
        .answering("newt_getSnapshot", |_, answer| {
            let mut page = answer?;
            if let Some(leaf) = page["leaves"].as_array_mut().and_then(|l| l.last_mut()) {
                leaf[1] = json!(B256::repeat_byte(0x66));
            }
            Ok(page)
        })
        .answering("newt_getArtifact", withhold(&["three", "four"]));
    let tampering = older_snapshot(world, two.0)
        .await
        .answering("newt_getDelta", |_, answer| {
            let mut page = answer?;
            for entry in page["entries"].as_array_mut().into_iter().flatten() {
                entry[1] = json!(keccak256("another source"));
            }
            Ok(page)
        })
        .answering("newt_getArtifact", withhold(&["three", "four"]));
    let peers = vec![lying.address(), tampering.address()];
    let (member, enclave) = newcomer(world, 3, peers, shares).await;
    let chain = noted(&member, &enclave, &[&lying, &tampering]).await;
    let lies = note(&enclave, &lying.address()).await.unwrap();
    assert!(
        lies.contains(&format!("snapshot of commit {} has root", last.0)),
        "{lies}"
    );
    let tampered = note(&enclave, &tampering.address()).await.unwrap();
    assert!(
        tampered.contains(&format!("delta of commit {} hashes to", rejected.0 + 1)),
        "{tampered}"
    );
    // It stands where the last right answer led, and serves that; there is no other way on yet.
    assert_eq!(chain["sequence_no"], json!(rejected.0), "{chain}");
    assert_eq!(chain["state_root"], json!(rejected.1));
    wait_leaf(world, &enclave, keccak256(source("two"))).await;
    for name in ["three", "four", "another source"] {
        let served = leaves::fetch(
            &world.chain,
            &enclave,
            Namespace::PolicyRego,
            keccak256(source(name)),
        )
        .await;
        assert!(served.is_err(), "{name} is served");
    }
    say(&format!("refused: {lies}; {tampered}"));

    let da_store = world.da_store.as_ref().unwrap();
    da_store.set_faults(Faults::default());
    at(&enclave, last.0, last.1).await;
    wait_leaf(world, &enclave, keccak256(source("four"))).await;
    say("with DA back it replays what the peers kept from it");
    member.shim.stop().await;
}

/// A peer whose newest snapshot, it says, is that of commit `sequence`.
async fn older_snapshot(world: &World, sequence: u64) -> Hostile {
    Hostile::start(world.shim.api_address())
        .await
        .unwrap()
        .asking("newt_getSnapshot", move |params| {
            params["sequence_no"] = json!(sequence);
        })
}

/// Keeps some sources.
fn withhold(names: &[&str]) -> impl Fn(&Value, Answer) -> Answer + Send + Sync + 'static {
    let kept: Vec<Value> = names
        .iter()
        .map(|name| json!(keccak256(source(name))))
        .collect();
    move |params, answer| {
        if kept.contains(&params["hash"]) {
            return Err(RpcError::new(ErrorName::NotFound, "not for you"));
        }
        answer
    }
}

/// Starts an enclave that asks these peers, and gives it the master secret.
async fn newcomer(
    world: &World,
    index: usize,
    peers: Vec<String>,
    shares: &KeptShares,
) -> (Member, Enclave) {
    let member = world.join_asking(index, peers).await.unwrap();
    network::recover(world, &member, shares, PATIENCE)
        .await
        .unwrap();
    let enclave = network::connect_stage(world, &member, 2, PATIENCE)
        .await
        .unwrap();
    (member, enclave)
}

/// Waits until an enclave says something of each of these peers; gives back what it says of its chain then.
async fn noted(member: &Member, enclave: &Enclave, peers: &[&Hostile]) -> Value {
    let health = network::wait(member, enclave, PATIENCE, "every peer is refused", |h| {
        let notes = h["chains"][0]["peers"].as_array();
        peers.iter().all(|peer| {
            notes
                .into_iter()
                .flatten()
                .any(|note| note["address"] == json!(peer.address()))
        })
    })
    .await
    .unwrap();
    health["chains"][0].clone()
}

/// What an enclave says of a peer.
async fn note(enclave: &Enclave, peer: &str) -> Option<String> {
    let health: Value = enclave.call("newt_health", json!({})).await.unwrap();
    health["chains"][0]["peers"]
        .as_array()?
        .iter()
        .find(|note| note["address"] == json!(peer))
        .and_then(|note| Some(note["note"].as_str()?.to_owned()))
}
