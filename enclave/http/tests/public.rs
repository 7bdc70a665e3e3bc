//! Requests of components against real HTTPS servers, and what is not even asked.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Answer, ok, tls_server};
use flate2::{Compression, write::GzEncoder};
use newton_http::{
    HttpError, PublicClient, PublicError, PublicLimits, PublicRequest, PublicResponse, TcpDialer,
    tls_config,
};
use rustls::RootCertStore;

const LIMITS: PublicLimits = PublicLimits {
    timeout: Duration::from_secs(5),
    loopback: true,
};

fn client(roots: RootCertStore) -> PublicClient {
    PublicClient::new(Arc::new(TcpDialer), tls_config(roots), LIMITS)
}

fn get(url: &str) -> PublicRequest<'_> {
    PublicRequest {
        method: "GET",
        url,
        headers: &[],
        body: None,
    }
}

async fn fetch(client: &PublicClient, url: &str) -> Result<PublicResponse, PublicError> {
    client.fetch(&get(url), 1_000).await
}

fn refusal(result: Result<PublicResponse, PublicError>) -> String {
    match result.unwrap_err() {
        PublicError::Refused(why) => why,
        other => panic!("{other}"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encoded(body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX-Kept: yes\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn moved(status: u16, to: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// The lower-cased headers of a request's head.
fn heads(head: &str) -> BTreeMap<String, String> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn method_headers_and_body_arrive_and_those_of_the_connection_are_our_own() {
    let (port, roots) = tls_server(&["localhost"], |head, body| {
        assert!(
            head.starts_with("PATCH /a%20b?q=1&r=%C3%BC HTTP/1.1\r\n"),
            "{head}"
        );
        let headers = heads(head);
        assert_eq!(headers["x-twice"], "2");
        assert_eq!(head.matches("x-twice").count(), 2);
        assert_eq!(headers["authorization"], "Bearer s");
        assert_eq!(headers["content-length"], "4");
        assert_eq!(headers["accept-encoding"], "gzip");
        assert!(headers["host"].starts_with("localhost:"), "{head}");
        assert_eq!(body, b"body");
        Answer::Now(
            b"HTTP/1.1 418 Teapot\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi"
                .to_vec(),
        )
    })
    .await;
    let url = format!("https://localhost:{port}/a b?q=1&r=ü#fragment");
    let headers = [
        ("X-Twice", "1"),
        ("x-twice", "2"),
        ("Authorization", "Bearer s"),
        ("Host", "evil.example"),
        ("Content-Length", "9999"),
        ("Transfer-Encoding", "chunked"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()));
    let request = PublicRequest {
        method: "patch",
        url: &url,
        headers: &headers,
        body: Some(b"body"),
    };
    let response = client(roots).fetch(&request, 1_000).await.unwrap();
    assert_eq!(response.status, 418);
    assert_eq!(response.body, b"hi");
    let cookies: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(cookies, ["a", "b"]);
}

#[tokio::test]
async fn chunks_are_joined_and_gzip_is_undone_within_the_limit() {
    let (port, roots) = tls_server(&["localhost"], |head, _| {
        Answer::Now(match head.split(' ').nth(1).unwrap() {
            "/chunked" => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
                    .to_vec()
            }
            "/gzip" => encoded(&gzip(b"plain")),
            "/fits" => encoded(&gzip(&[b'x'; 1_000])),
            "/bomb" => encoded(&gzip(&[b'x'; 1_001])),
            "/broken" => encoded(b"no gzip at all"),
            "/large" => ok(&[b'x'; 1_001]),
            path => panic!("{path}"),
        })
    })
    .await;
    let at = |path: &str| format!("https://localhost:{port}{path}");
    let client = client(roots);
    assert_eq!(
        fetch(&client, &at("/chunked")).await.unwrap().body,
        b"abcde"
    );
    let plain = fetch(&client, &at("/gzip")).await.unwrap();
    assert_eq!(plain.body, b"plain");
    assert_eq!(
        plain.headers,
        [("x-kept".to_owned(), "yes".to_owned())],
        "length and encoding of what was compressed say nothing about what is handed on"
    );
    assert_eq!(
        fetch(&client, &at("/fits")).await.unwrap().body.len(),
        1_000
    );
    for path in ["/bomb", "/large"] {
        let error = fetch(&client, &at(path)).await.unwrap_err();
        assert!(
            matches!(error, PublicError::TooLarge { limit: 1_000 }),
            "{error}"
        );
    }
    assert!(refusal(fetch(&client, &at("/broken")).await).contains("gzip"));
    // Who asks for an encoding gets it as it is.
    let url = at("/gzip");
    let headers = [("accept-encoding".to_owned(), "gzip".to_owned())];
    let request = PublicRequest {
        headers: &headers,
        ..get(&url)
    };
    let raw = client.fetch(&request, 1_000).await.unwrap();
    assert_eq!(raw.body, gzip(b"plain"));
}

#[tokio::test]
async fn redirects_are_followed_and_carry_no_secrets_elsewhere() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let (other, other_roots) = tls_server(&["localhost"], move |head, body| {
        log.lock().unwrap().push((head.to_owned(), body.to_vec()));
        Answer::Now(ok(b"other"))
    })
    .await;
    let (port, mut roots) = tls_server(&["localhost"], move |head, body| {
        Answer::Now(match head.split(' ').nth(1).unwrap() {
            "/relative/start" => moved(302, "../end?x"),
            "/end?x" => {
                assert!(
                    head.starts_with("GET "),
                    "a POST that is redirected by 302 becomes a GET"
                );
                assert_eq!(
                    heads(head)["x-api-key"],
                    "k",
                    "the same origin keeps the headers"
                );
                assert!(!heads(head).contains_key("content-type"));
                assert!(body.is_empty());
                ok(b"end")
            }
            "/elsewhere" => moved(307, &format!("https://localhost:{other}/there")),
            "/plain" => moved(301, "http://localhost/"),
            "/private" => moved(308, "https://10.0.0.1/"),
            "/loop" => moved(303, "/loop"),
            "/nowhere" => b"HTTP/1.1 302 Found\r\nContent-Length: 1\r\n\r\nn".to_vec(),
            path => panic!("{path}"),
        })
    })
    .await;
    roots.roots.extend(other_roots.roots);
    let client = client(roots);
    let at = |path: &str| format!("https://localhost:{port}{path}");
    let headers = [
        ("X-Api-Key", "k"),
        ("Authorization", "Bearer s"),
        ("Content-Type", "text/x"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()));
    let post = |url| PublicRequest {
        method: "POST",
        url,
        headers: &headers,
        body: Some(b"b"),
    };
    let url = at("/relative/start");
    assert_eq!(client.fetch(&post(&url), 9).await.unwrap().body, b"end");
    let url = at("/elsewhere");
    assert_eq!(client.fetch(&post(&url), 9).await.unwrap().body, b"other");
    let (head, body) = seen.lock().unwrap().pop().unwrap();
    assert!(head.starts_with("POST /there "), "307 keeps the method");
    assert_eq!(body, b"b");
    assert_eq!(heads(&head)["content-type"], "text/x");
    assert!(
        !head.contains("Bearer") && !head.contains("api-key"),
        "{head}"
    );
    assert_eq!(
        refusal(fetch(&client, &at("/plain")).await),
        "only https URLs are fetched"
    );
    assert_eq!(
        refusal(fetch(&client, &at("/private")).await),
        "the URL's host is not a public address"
    );
    assert_eq!(
        refusal(fetch(&client, &at("/loop")).await),
        "more than 10 redirects"
    );
    let without_location = fetch(&client, &at("/nowhere")).await.unwrap();
    assert_eq!(
        (without_location.status, without_location.body),
        (302, b"n".to_vec())
    );
}

#[tokio::test]
async fn what_the_network_or_a_wrong_certificate_does_is_no_answer() {
    let (port, roots) = tls_server(&["localhost"], |head, _| {
        if head.contains("/slow") {
            Answer::Never
        } else {
            Answer::Now(ok(b""))
        }
    })
    .await;
    let unreachable = |result: Result<PublicResponse, PublicError>| match result.unwrap_err() {
        PublicError::Unreachable(error) => error,
        other => panic!("{other}"),
    };
    // A name that the certificate does not have, and a root that nobody vouches for.
    let wrong_name = fetch(
        &client(roots.clone()),
        &format!("https://127.0.0.1:{port}/"),
    )
    .await;
    assert!(matches!(unreachable(wrong_name), HttpError::Tls { .. }));
    let strange = fetch(
        &client(RootCertStore::empty()),
        &format!("https://localhost:{port}/"),
    )
    .await;
    assert!(matches!(unreachable(strange), HttpError::Tls { .. }));
    let hurried = PublicClient::new(
        Arc::new(TcpDialer),
        tls_config(roots),
        PublicLimits {
            timeout: Duration::from_millis(300),
            ..LIMITS
        },
    );
    let error = fetch(&hurried, &format!("https://localhost:{port}/slow"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            PublicError::Timeout { .. } | PublicError::Unreachable(HttpError::Timeout { .. })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_public_is_not_asked() {
    let strict = PublicClient::new(
        Arc::new(TcpDialer),
        tls_config(RootCertStore::empty()),
        PublicLimits {
            loopback: false,
            ..LIMITS
        },
    );
    for (url, why) in [
        ("http://example.org/", "https"),
        ("ftp://example.org/", "https"),
        ("example.org", "absolute"),
        ("https://user:pw@example.org/", "user information"),
        ("https://example.org:8443/", "port 443"),
        ("https://localhost/", "public"),
        ("https://a.localhost./", "public"),
        ("https://127.0.0.1/", "public"),
        ("https://0x7f.1/", "public"),
        ("https://2130706433/", "public"),
        ("https://[::1]/", "public"),
        ("https://169.254.169.254/latest/meta-data", "public"),
        ("https://[::ffff:10.0.0.1]/", "public"),
    ] {
        let refused = refusal(fetch(&strict, url).await);
        assert!(refused.contains(why), "{url}: {refused}");
    }
    let headers = [("bad name".to_owned(), "v".to_owned())];
    let bad_header = PublicRequest {
        headers: &headers,
        ..get("https://example.org/")
    };
    assert!(refusal(strict.fetch(&bad_header, 1).await).contains("name"));
    let headers = [("a".to_owned(), "v\r\nInjected: yes".to_owned())];
    let injected = PublicRequest {
        headers: &headers,
        ..get("https://example.org/")
    };
    assert!(refusal(strict.fetch(&injected, 1).await).contains("control"));
    for method in ["CONNECT", "trace", "GE T", ""] {
        let request = PublicRequest {
            method,
            ..get("https://example.org/")
        };
        assert!(!refusal(strict.fetch(&request, 1).await).is_empty());
    }
}
