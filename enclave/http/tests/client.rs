//! The client against servers that behave and servers that do not.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Answer, ok, read_request, tls_server};
use newton_http::{
    BoxFuture, BoxStream, DialClass, Dialer, HttpClient, HttpError, Limits, Request, Stage,
    TcpDialer, tls_config,
};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// A server that answers every request with `answer(connection, request on it)`; `None` closes the connection unanswered.
async fn server<F>(answer: F) -> (String, Arc<AtomicUsize>)
where
    F: Fn(usize, usize, &str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let connection = count.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut n = 0;
                while let Some((head, body)) = read_request(&mut stream).await {
                    let Some(bytes) = answer(connection, n, &head, &body) else {
                        return;
                    };
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    n += 1;
                }
            });
        }
    });
    (url, connections)
}

fn client(url: &str) -> HttpClient {
    HttpClient::new(Arc::new(TcpDialer), DialClass::Rpc, url).unwrap()
}

fn limited(url: &str, limits: Limits) -> HttpClient {
    HttpClient::with_limits(Arc::new(TcpDialer), DialClass::Rpc, url, limits).unwrap()
}

fn short() -> Limits {
    Limits {
        connect_timeout: Duration::from_millis(200),
        exchange_timeout: Duration::from_millis(300),
        max_body: 1000,
        max_connections: 2,
    }
}

#[tokio::test]
async fn posts_json_and_reuses_the_connection() {
    let (url, connections) = server(|_, n, head, body| {
        assert!(head.starts_with("POST /base HTTP/1.1\r\n"), "{head}");
        assert!(
            head.to_ascii_lowercase()
                .contains("content-type: application/json")
        );
        let sent: Value = serde_json::from_slice(body).unwrap();
        Some(ok(json!({"n": n, "sent": sent}).to_string().as_bytes()))
    })
    .await;
    let client = client(&format!("{url}/base"));
    for n in 0..5 {
        let answer: Value = client.post_json("", &json!([n])).await.unwrap();
        assert_eq!(answer, json!({"n": n, "sent": [n]}));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let (url, connections) =
        server(|connection, n, _, _| (n == 0).then(|| ok(connection.to_string().as_bytes()))).await;
    let client = client(&url);
    assert_eq!(client.get("/a").await.unwrap().body, "0");
    // The server answers once a connection, then closes as soon as the next request arrives: that request was sent, so it
    // must not be repeated silently.
    assert!(matches!(
        client.get("/b").await,
        Err(HttpError::Protocol { .. })
    ));
    assert_eq!(client.get("/c").await.unwrap().body, "1");
    assert_eq!(connections.load(Ordering::SeqCst), 2);

    let (url, connections) = server(|_, _, _, _| {
        Some(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec())
    })
    .await;
    let client = self::client(&url);
    for _ in 0..3 {
        client.get("/").await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let (url, _) = server(|_, _, head, _| {
        Some(if head.starts_with("GET /announced") {
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec()
        } else if head.starts_with("GET /chunked") {
            let mut out = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for _ in 0..11 {
                out.extend_from_slice(b"64\r\n");
                out.extend_from_slice(&[b'x'; 100]);
                out.extend_from_slice(b"\r\n");
            }
            out
        } else {
            ok(&[b'x'; 1000])
        })
    })
    .await;
    let client = limited(&url, short());
    let got = |e: HttpError| match e {
        HttpError::BodyTooLarge { limit, got, .. } => (limit, got),
        e => panic!("{e}"),
    };
    assert_eq!(
        got(client.get("/announced").await.unwrap_err()),
        (1000, 99_999_999_999)
    );
    assert_eq!(got(client.get("/chunked").await.unwrap_err()).0, 1000);
    assert_eq!(client.get("/equal").await.unwrap().body.len(), 1000);
    let error = client
        .send(Request::get("/own").max_body(999))
        .await
        .unwrap_err();
    assert_eq!(got(error), (999, 1000));
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let (url, _) = server(|_, _, _, _| {
        let mut out = b"HTTP/1.1 200 OK\r\n".to_vec();
        out.extend(
            std::iter::repeat_n(b"x-y: aaaaaaaaaaaaaaaaaaaaaaaa\r\n".as_slice(), 20_000).flatten(),
        );
        Some(out)
    })
    .await;
    assert!(matches!(
        client(&url).get("/").await,
        Err(HttpError::Protocol { .. })
    ));
}

#[tokio::test]
async fn a_silent_peer_times_out() {
    let (url, _) = server(|_, _, head, _| {
        Some(if head.contains("/half") {
            ok(b"x")[..20].to_vec()
        } else {
            Vec::new()
        })
    })
    .await;
    let client = limited(&url, short());
    for path in ["/never", "/half"] {
        let error = client.get(path).await.unwrap_err();
        assert!(
            matches!(
                error,
                HttpError::Timeout {
                    stage: Stage::Exchange,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.is_retryable());
    }
}

struct Never;
impl Dialer for Never {
    fn dial<'a>(
        &'a self,
        _: DialClass,
        _: &'a str,
        _: u16,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_dialler_that_hangs_or_refuses() {
    let client =
        HttpClient::with_limits(Arc::new(Never), DialClass::Da, "http://x:1/KEY", short()).unwrap();
    let error = client.get("").await.unwrap_err();
    assert!(
        matches!(
            error,
            HttpError::Timeout {
                stage: Stage::Connect,
                ..
            }
        ),
        "{error}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/KEY", listener.local_addr().unwrap());
    drop(listener);
    let error = self::client(&url).get("").await.unwrap_err();
    assert!(matches!(error, HttpError::Dial { .. }));
    assert!(!format!("{error} {error:?} {client:?}").contains("KEY"));
}

#[tokio::test]
async fn connections_are_limited() {
    let (url, connections) = server(|_, _, _, _| Some(Vec::new())).await;
    let client = limited(
        &url,
        Limits {
            exchange_timeout: Duration::from_secs(2),
            ..short()
        },
    );
    let requests: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let c = client.clone();
                async move { c.get("/").await }
            })
        })
        .collect();
    let mut stages = Vec::new();
    for request in requests {
        match request.await.unwrap().unwrap_err() {
            HttpError::Timeout { stage, .. } => stages.push(stage),
            e => panic!("{e}"),
        }
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    assert_eq!(stages.iter().filter(|s| **s == Stage::Connect).count(), 1);
}

#[tokio::test]
async fn statuses_and_bad_json_are_told_apart() {
    let (url, _) = server(|_, _, head, _| {
        Some(if head.starts_with("GET /s") {
            b"HTTP/1.1 429 Too Many\r\ncontent-length: 6\r\n\r\nslow\r\n".to_vec()
        } else {
            ok(b"<html>")
        })
    })
    .await;
    let client = client(&url);
    match client.json::<Value>(Request::get("/s")).await.unwrap_err() {
        e @ HttpError::Status { status: 429, .. } => {
            assert!(e.is_retryable());
            assert!(e.to_string().ends_with("slow  "), "{e}");
        }
        e => panic!("{e}"),
    }
    let error = client
        .json::<Value>(Request::get("/html"))
        .await
        .unwrap_err();
    assert!(matches!(error, HttpError::Json { .. }) && !error.is_retryable());
    assert_eq!(client.get("/s").await.unwrap().status, 429);
}

#[tokio::test]
async fn tls_is_verified() {
    let (port, roots) = tls_server(&["localhost"], |_, _| Answer::Now(ok(b"inside"))).await;
    let url = format!("https://localhost:{port}/");
    let tls = |url: &str, roots| {
        HttpClient::with_tls(
            Arc::new(TcpDialer),
            DialClass::Peer,
            url,
            Limits::default(),
            tls_config(roots),
            Default::default(),
        )
        .unwrap()
    };
    assert_eq!(
        tls(&url, roots.clone()).get("").await.unwrap().body,
        "inside"
    );
    // A certificate for another name, and a root nobody vouches for.
    let other = format!("https://127.0.0.1:{port}/");
    assert!(matches!(
        tls(&other, roots).get("").await,
        Err(HttpError::Tls { .. })
    ));
    assert!(matches!(
        client(&url).get("").await,
        Err(HttpError::Tls { .. })
    ));
}
