//! A component in JavaScript that asks a real server with a secret API key.

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
    policy::{self, Example},
    run::{self, Summary},
    tasks::{self, WireIntent},
};
use newton_types::rpc::ErrorName;
use newton_xtask::setup::Setup;
use serde_json::json;

use super::{Setting, name, recorder::Recorder, say, tell};

const API_KEY: &str = "an API key for trying it out";
const PRICE: &str = "10000";

/// The whole way of the price-feed example: artifacts of 12 MB over DA, secrets, HTTPS that ends inside, two decisions, and a
/// server that is gone.
pub async fn javascript_over_https(setting: Setting) {
    let gone = Arc::new(AtomicBool::new(false));
    let off = gone.clone();
    let recorder = Recorder::start(move |head| {
        if off.load(Ordering::SeqCst) {
            // Not HTTP: no answer at all.
            return "the end\r\n\r\n".to_owned();
        }
        let known = head.contains(&format!("x-api-key: {API_KEY}\r\n"));
        let (status, body) = if known {
            ("200 OK", format!(r#"{{"asset":"NEWT","price":"{PRICE}"}}"#))
        } else {
            ("401 Unauthorized", String::new())
        };
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    })
    .await;
    let url = format!("https://{}/v1/price", recorder.server.address);
    let servers = vec![recorder.server.clone()];
    tell(setting, servers, async |world: &World, project: &Path| {
        let folder = project.join("tests/examples/price-feed");
        let built = tempfile::tempdir().unwrap();
        let wasm = built.path().join("price-feed.wasm");
        let source = "tests/examples/price-feed/component/price-feed.js";
        compile::javascript_component(&Setup::new().unwrap(), source, &wasm).unwrap();
        let bytes = std::fs::metadata(&wasm).unwrap().len();
        assert!(bytes > 5_000_000, "a JavaScript engine is in there");
        say(&format!("the component has {bytes} bytes"));

        let (enclave, _) = run::admit(world, &mut Summary::default(), &say)
            .await
            .unwrap();
        let example = Example::price_feed(&folder, &wasm, &url).unwrap();
        let key = enclave.attested.hpke_public_key;
        let deployed = policy::deploy(&world.chain, &world.da, &example, key)
            .await
            .unwrap();
        run::wait_committed(world, &enclave, &deployed)
            .await
            .unwrap();
        for (intent, allowed) in [("allow", true), ("deny", false)] {
            let intent = folder.join(format!("intents/{intent}.json"));
            let intent = WireIntent::load(&intent).unwrap();
            let begun = Instant::now();
            let answered = tasks::run(&world.chain, &enclave, &intent, b"{}")
                .await
                .unwrap();
            assert_eq!(
                answered.allowed,
                allowed,
                "requests: {:?}",
                recorder.requests.lock().unwrap()
            );
            say(&format!(
                "result {} after {:?}, {} µs of it in the enclave",
                answered.result,
                begun.elapsed(),
                answered.evaluation_us
            ));
        }
        let asked = std::mem::take(&mut *recorder.requests.lock().unwrap());
        assert!(asked.len() >= 2, "{asked:?}");
        assert!(asked[0].starts_with("GET /v1/price?asset=NEWT HTTP/1.1\r\n"));
        let wire = recorder.wire.lock().unwrap().clone();
        assert!(wire.len() > 1_000, "the host relayed the exchange");
        for plain in [API_KEY, PRICE, "/v1/price", "x-api-key"] {
            assert!(
                !wire.windows(plain.len()).any(|w| w == plain.as_bytes()),
                "the host saw {plain:?}"
            );
        }

        // The host, or the network, takes the server away: no decision, neither way.
        gone.store(true, Ordering::SeqCst);
        let intent = WireIntent::load(&folder.join("intents/deny.json")).unwrap();
        let (task, _, _) = tasks::create(&world.chain, &intent, b"{}").await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let refused = loop {
            let error = enclave
                .try_call("newt_evaluateAndSign", json!({ "task_id": task }))
                .await
                .unwrap_err();
            let error = name(error);
            if error != ErrorName::TaskNotFound || Instant::now() > deadline {
                break error;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(refused, ErrorName::Abstained);
    })
    .await;
}
