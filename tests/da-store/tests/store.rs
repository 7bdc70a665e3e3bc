//! The store over HTTP, through the enclave's own client.
#![allow(clippy::unwrap_used, missing_docs)]

use alloy_primitives::keccak256;
use bytes::Bytes;
use newton_artifacts::{
    ArtifactError, BlobSource, Certificate, DaBlob, DaChecks, DaRef, DaRules, EigenDaProxy,
    FetchError, Unavailable, check_reference, encode_payload, fetch_artifact,
};
use newton_da_store::{Faults, StoreHandle, serve, serve_at};
use newton_http::{DialClass, HttpClient, HttpError, Limits, Request, TcpDialer};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

async fn start(dir: &Path) -> StoreHandle {
    serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), dir).unwrap()
}

fn proxy(store: &StoreHandle) -> EigenDaProxy {
    EigenDaProxy::new(Arc::new(TcpDialer), &store.url()).unwrap()
}

fn raw(store: &StoreHandle) -> HttpClient {
    HttpClient::new(Arc::new(TcpDialer), DialClass::Da, &store.url()).unwrap()
}

fn reference(parts: &[(Bytes, usize)]) -> Vec<u8> {
    let blobs = parts
        .iter()
        .map(|(c, l)| DaBlob {
            certificate: c.clone(),
            length: *l as u32,
        })
        .collect();
    DaRef::new(blobs).unwrap().encode()
}

async fn fetch(
    source: &EigenDaProxy,
    da_ref: &[u8],
    whole: &[u8],
) -> Result<Vec<u8>, ArtifactError> {
    let rules = DaRules::default();
    let da_ref = check_reference(&rules, DaChecks::Incomplete, da_ref, whole.len() as u32)?;
    Ok(fetch_artifact(source, &da_ref, keccak256(whole)).await?)
}

#[tokio::test]
async fn an_artifact_of_two_blobs_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (vec![1u8; 70_000], b"the end".to_vec());
    let whole = [first.clone(), second.clone()].concat();
    let store = start(dir.path()).await;
    let proxy = self::proxy(&store);
    let parts = [
        (proxy.put(first.clone()).await.unwrap(), first.len()),
        (proxy.put(second.clone()).await.unwrap(), second.len()),
    ];
    let da_ref = reference(&parts);
    assert_eq!(fetch(&proxy, &da_ref, &whole).await.unwrap(), whole);
    assert_eq!(proxy.put(second.clone()).await.unwrap(), parts[1].0);
    store.stop().await;
    let error = fetch(&proxy, &da_ref, &whole).await.unwrap_err();
    assert!(
        matches!(&error, ArtifactError::Unavailable(u) if u.is_retryable()),
        "{error}"
    );

    std::fs::write(dir.path().join("7.partial"), b"interrupted").unwrap();
    let store = start(dir.path()).await;
    assert_eq!(
        fetch(&self::proxy(&store), &da_ref, &whole).await.unwrap(),
        whole
    );
    assert!(!dir.path().join("7.partial").exists());
    assert!(store.lose(&parts[0].0).unwrap());
    let error = fetch(&self::proxy(&store), &da_ref, &whole)
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            ArtifactError::Unavailable(Unavailable::Fetch {
                blob: 0,
                source: FetchError::Failed { status: 500, .. }
            })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn faults_reach_the_client_as_typed_errors() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).await;
    let proxy = self::proxy(&store);
    let certificate = proxy.put("payload").await.unwrap();
    let get = || proxy.blob(&certificate, 7);
    let set = |faults: Faults| store.set_faults(faults);

    set(Faults {
        get_status: Some(503),
        times: Some(1),
        ..Faults::default()
    });
    assert!(
        matches!(get().await, Err(e @ FetchError::Busy { status: 503, .. }) if e.is_retryable())
    );
    assert_eq!(get().await.unwrap(), "payload");
    set(Faults {
        put_status: Some(429),
        ..Faults::default()
    });
    assert!(matches!(
        proxy.put("x").await,
        Err(FetchError::Busy { status: 429, .. })
    ));
    set(Faults {
        get_status: Some(418),
        code: 2,
        ..Faults::default()
    });
    assert!(
        matches!(get().await, Err(e @ FetchError::Refused { code: 2, .. }) if !e.is_retryable())
    );
    set(Faults {
        corrupt: true,
        ..Faults::default()
    });
    let da_ref = reference(&[(certificate.clone(), 7)]);
    let error = fetch(&proxy, &da_ref, b"payload").await.unwrap_err();
    assert!(
        matches!(error, ArtifactError::Unavailable(Unavailable::Hash { .. })),
        "{error}"
    );
    set(Faults {
        truncate: Some(32),
        ..Faults::default()
    });
    assert!(matches!(get().await, Err(FetchError::Encoding(_))));

    set(Faults {
        latency_ms: 500,
        ..Faults::default()
    });
    let limits = Limits {
        exchange_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let hasty =
        HttpClient::with_limits(Arc::new(TcpDialer), DialClass::Da, &store.url(), limits).unwrap();
    let error = EigenDaProxy::from(hasty)
        .blob(&certificate, 7)
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Http(HttpError::Timeout { .. })) && error.is_retryable());
}

#[tokio::test]
async fn statuses_are_those_of_the_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).await;
    let http = raw(&store);
    let status = async |request: Request| {
        let response = http.send(request).await.unwrap();
        (
            response.status.as_u16(),
            String::from_utf8_lossy(&response.body).into_owned(),
        )
    };
    let put = |query: &str, body: Vec<u8>| {
        Request::post(format!("/put{query}"), "application/octet-stream", body)
    };
    assert_eq!(status(put("", vec![1])).await.0, 400);
    assert_eq!(
        status(put("?commitment_mode=optimism_keccak256", vec![1]))
            .await
            .0,
        403
    );
    assert_eq!(
        status(put("?commitment_mode=standard", vec![])).await.0,
        400
    );
    assert_eq!(
        status(put("?commitment_mode=standard", vec![0; 16_252_898]))
            .await
            .0,
        400
    );
    assert_eq!(
        status(Request::get("/get/zz?commitment_mode=standard"))
            .await
            .0,
        400
    );
    let (code, json) = status(Request::get("/get/0x0302?commitment_mode=standard")).await;
    assert_eq!(
        (code, json.contains("\"StatusCode\":1")),
        (418, true),
        "{json}"
    );
    assert_eq!(status(Request::get("/health")).await.0, 200);
    assert!(status(Request::get("/config")).await.1.contains("16252897"));
    assert_eq!(status(Request::get("/nothing")).await.0, 404);

    let (code, _) = status(put("?commitment_mode=standard", b"abc".to_vec())).await;
    assert_eq!(code, 200);
    let certificate = newton_da_store::certify(b"abc", 1).unwrap().to_bytes();
    let path = |c: &[u8], more: &str| {
        Request::get(format!(
            "/get/0x{}?commitment_mode=standard{more}",
            hex::encode(c)
        ))
    };
    assert_eq!(http.send(path(&certificate, "")).await.unwrap().body, "abc");
    let encoded = http
        .send(path(&certificate, "&return_encoded_payload=true"))
        .await
        .unwrap()
        .body;
    assert_eq!(encoded, encode_payload(b"abc").unwrap());
    // A certificate of another payload is well-formed but unknown; a forged one is refused for good.
    let unknown = newton_da_store::certify(b"abd", 1).unwrap();
    assert_eq!(status(path(&unknown.to_bytes(), "")).await.0, 500);
    let forged = Certificate {
        batch_header: newton_da_store::certify(b"abc", 2).unwrap().batch_header,
        ..unknown
    };
    let (code, json) = status(path(&forged.to_bytes(), "")).await;
    assert_eq!(
        (code, json.contains("\"StatusCode\":3")),
        (418, true),
        "{json}"
    );

    let faults = Request::new(hyper::Method::PUT, "/dev/faults");
    assert_eq!(status(faults).await.0, 400);
    let lose = || {
        Request::post(
            "/dev/lose",
            "text/plain",
            format!("0x{}", hex::encode(&certificate)),
        )
    };
    assert_eq!(status(lose()).await.0, 200);
    assert_eq!(status(lose()).await.0, 500);
}

#[tokio::test]
async fn a_damaged_file_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = serve_at(
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        dir.path(),
        9,
    )
    .unwrap();
    let proxy = self::proxy(&store);
    let certificate = proxy.put("payload").await.unwrap();
    assert_eq!(
        Certificate::parse(&certificate)
            .unwrap()
            .batch_header
            .reference_block_number,
        9
    );
    let file = std::fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(file, "Payload").unwrap();
    assert!(matches!(
        proxy.blob(&certificate, 7).await,
        Err(FetchError::Failed { status: 500, .. })
    ));
}

/// The largest blob goes through. Slow without optimisation: seconds of field arithmetic.
#[tokio::test]
async fn the_largest_payload_fits() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).await;
    let proxy = self::proxy(&store);
    let payload: Vec<u8> = (0..16_252_897u32).map(|i| (i % 251) as u8).collect();
    let certificate = proxy.put(payload.clone()).await.unwrap();
    assert_eq!(
        proxy
            .blob(&certificate, payload.len() as u32)
            .await
            .unwrap(),
        payload
    );
}
