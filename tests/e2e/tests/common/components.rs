//! Components in JavaScript and Python that ask a real server with a secret.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use newton_e2e::{
    World, compile,
    enclave::Enclave,
    policy::{self, Example},
    run::{self, Summary},
    tasks::{self, WireIntent},
};
use newton_types::rpc::ErrorName;
use newton_xtask::setup::Setup;
use serde_json::json;

use super::{Setting, name, recorder::Recorder, say, tell};

/// An example of `tests/examples/` and the server it asks.
pub struct Asking {
    folder: &'static str,
    source: &'static str,
    entrypoint: &'static str,
    path: &'static str,
    /// The header that proves who asks.
    credential: &'static str,
    answer: &'static str,
    /// What the host must never see, beside the credential and the path.
    secret: &'static str,
}

/// JavaScript.
pub const PRICE_FEED: Asking = Asking {
    folder: "tests/examples/price-feed",
    source: "component/price-feed.js",
    entrypoint: "price_feed.allow",
    path: "/v1/price",
    credential: "x-api-key: an API key for trying it out\r\n",
    answer: r#"{"asset":"NEWT","price":"10000"}"#,
    secret: "NEWT",
};

/// Python.
pub const SANCTIONS_LIST: Asking = Asking {
    folder: "tests/examples/sanctions-list",
    source: "component/sanctions_list.py",
    entrypoint: "sanctions_list.allow",
    path: "/v1/addresses",
    credential: "authorization: Bearer a bearer token for trying it out\r\n",
    answer: r#"{"addresses":["0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"]}"#,
    secret: "addresses",
};

/// The whole way of one example: artifacts of more than 10 MB over DA, secrets, HTTPS that ends inside, two decisions, and a
/// server that is gone.
pub async fn over_https(setting: Setting, example: &Asking) {
    let gone = Arc::new(AtomicBool::new(false));
    let recorder = Recorder::start({
        let (gone, credential, answer) = (gone.clone(), example.credential, example.answer);
        move |head| {
            if gone.load(Ordering::SeqCst) {
                // Not HTTP: no answer at all.
                return "the end\r\n\r\n".to_owned();
            }
            let (status, body) = if head.contains(credential) {
                ("200 OK", answer)
            } else {
                ("401 Unauthorized", "")
            };
            let length = body.len();
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
        }
    })
    .await;
    let servers = vec![recorder.server.clone()];
    tell(
        setting,
        servers,
        super::Network::default(),
        async |world: &World, project: &Path| {
            let folder = project.join(example.folder);
            let (enclave, _) = run::admit(world, &mut Summary::default(), &say)
                .await
                .unwrap();
            deploy(world, &enclave, &folder, example, &recorder).await;
            // Compiling may outlast a task's expiry on a slow machine: the first evaluation is for that.
            let intent = WireIntent::load(&folder.join("intents/allow.json")).unwrap();
            let (task, _, _) = tasks::create(&world.chain, &intent, b"{}").await.unwrap();
            let begun = Instant::now();
            tasks::evaluate(&enclave, task, Duration::from_secs(300))
                .await
                .unwrap();
            say(&format!("first evaluation after {:?}", begun.elapsed()));
            recorder.requests.lock().unwrap().clear();
            for (intent, allowed) in [("allow", true), ("deny", false)] {
                let intent =
                    WireIntent::load(&folder.join(format!("intents/{intent}.json"))).unwrap();
                let begun = Instant::now();
                let answered = tasks::run(&world.chain, &enclave, &intent, b"{}")
                    .await
                    .unwrap();
                let asked = std::mem::take(&mut *recorder.requests.lock().unwrap());
                assert_eq!(answered.allowed, allowed, "{asked:?}");
                // Nothing is remembered: every task asks anew.
                assert!(!asked.is_empty());
                assert!(asked[0].starts_with(&format!("GET {}", example.path)));
                say(&format!(
                    "result {} after {:?}, {} µs of it in the enclave",
                    answered.result,
                    begun.elapsed(),
                    answered.evaluation_us
                ));
            }
            let wire = recorder.wire.lock().unwrap().clone();
            assert!(wire.len() > 1_000, "the host relayed the exchange");
            for plain in [
                example.credential.trim_end(),
                example.path,
                example.secret,
                "HTTP/1.1",
            ] {
                assert!(
                    !wire.windows(plain.len()).any(|w| w == plain.as_bytes()),
                    "the host saw {plain:?}"
                );
            }
            // The host, or the network, takes the server away: no decision, neither way.
            gone.store(true, Ordering::SeqCst);
            let intent = WireIntent::load(&folder.join("intents/deny.json")).unwrap();
            let refused = refusal(world, &enclave, &intent).await;
            assert_eq!(refused, ErrorName::Abstained);
        },
    )
    .await;
}

async fn deploy(
    world: &World,
    enclave: &Enclave,
    folder: &Path,
    example: &Asking,
    recorder: &Recorder,
) {
    let built = tempfile::tempdir().unwrap();
    let wasm = built.path().join("component.wasm");
    let source = format!("{}/{}", example.folder, example.source);
    compile::component(&Setup::new().unwrap(), &source, &wasm).unwrap();
    let bytes = std::fs::metadata(&wasm).unwrap().len();
    assert!(bytes > 5_000_000, "the language's engine is in there");
    say(&format!("the component has {bytes} bytes"));

    let url = format!("https://{}{}", recorder.server.address, example.path);
    let read = Example::asking(folder, example.entrypoint, &wasm, &url).unwrap();
    let key = enclave.attested.hpke_public_key;
    let deployed = policy::deploy(&world.chain, &world.da, &read, key)
        .await
        .unwrap();
    run::wait_committed(world, enclave, &deployed)
        .await
        .unwrap();
}

/// Why a new task is not evaluated.
async fn refusal(
    world: &World,
    enclave: &Enclave,
    intent: &newton_contracts::abi::Intent,
) -> ErrorName {
    let (task, _, _) = tasks::create(&world.chain, intent, b"{}").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let error = enclave
            .try_call("newt_evaluateAndSign", json!({ "task_id": task }))
            .await
            .unwrap_err();
        let error = name(error);
        if error != ErrorName::TaskNotFound || Instant::now() > deadline {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
