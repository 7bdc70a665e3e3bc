//! The deployment over HTTPS, to a node behind a server with a certificate of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use support::{Chain, config_dir, out_dir};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Ends TLS as `localhost` before a plain port; its port and certificate.
async fn tls_before(node: String) -> (u16, String) {
    let names = vec!["localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, node) = (acceptor.clone(), node.clone());
            tokio::spawn(async move {
                let Ok(mut outer) = acceptor.accept(stream).await else {
                    return;
                };
                let mut inner = TcpStream::connect(node).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    (port, cert.pem())
}

async fn program(url: String, folder: &Path, more: &'static [&'static str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_newton-deploy"));
    command
        .args(["--rpc", &url])
        .arg("--artifacts")
        .arg(out_dir())
        .arg("--config-dir")
        .arg(config_dir())
        .arg("--out")
        .arg(folder.join("addresses.json"))
        .args(more)
        .current_dir(folder);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_speaks_https_to_nodes_that_it_can_verify() {
    let chain = Chain::start().await;
    let node = chain.url.strip_prefix("http://").unwrap();
    let (port, pem) = tls_before(node.trim_end_matches('/').to_owned()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "nothing").unwrap();
    let url = format!("https://localhost:{port}/key-0123456789");
    const DRY: &[&str] = &[
        "--dry-run",
        "--deployer",
        "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266",
        "--rpc-ca",
        "ca.pem",
    ];

    let plain = format!("https://localhost:{port}");
    let (output, text) = program(plain.clone(), folder.path(), DRY).await;
    assert!(output.status.success(), "{text}");
    assert!(text.contains("dry run: nothing was sent"), "{text}");

    // A certificate that nothing vouches for, another name, a file without one: refused, and the key is not shown.
    let (output, text) = program(url.clone(), folder.path(), &DRY[..3]).await;
    assert!(
        !output.status.success() && text.contains("TLS with localhost"),
        "{text}"
    );
    assert!(!text.contains("0123456789"), "{text}");
    let by_number = url.replace("localhost", "127.0.0.1");
    let (output, text) = program(by_number, folder.path(), DRY).await;
    assert!(
        !output.status.success() && text.contains("TLS with 127.0.0.1"),
        "{text}"
    );
    const EMPTY: &[&str] = &[DRY[0], DRY[1], DRY[2], "--rpc-ca", "empty.pem"];
    let (output, text) = program(url, folder.path(), EMPTY).await;
    assert!(
        !output.status.success() && text.contains("no certificate"),
        "{text}"
    );

    // What is sent is signed here and goes the same way.
    let key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    std::fs::write(folder.path().join("key"), key).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(
        folder.path().join("key"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    const SEND: &[&str] = &["--private-key-file", "key", "--rpc-ca", "ca.pem"];
    let (output, text) = program(plain, folder.path(), SEND).await;
    assert!(output.status.success(), "{text}");
    assert!(text.contains("sent         20 transactions"), "{text}");
    let (_, text) = program(
        format!("ws://localhost:{port}"),
        folder.path(),
        &["--private-key-file", "key"],
    )
    .await;
    assert!(text.contains("unusable URL"), "{text}");
}
