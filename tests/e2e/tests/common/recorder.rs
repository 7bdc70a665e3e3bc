//! An HTTPS server on loopback, behind a relay that records what passes on the wire.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use newton_e2e::HttpsServer;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// A running server.
pub struct Recorder {
    /// How components reach it.
    pub server: HttpsServer,
    /// Every byte that passed, both directions in the order they came.
    pub wire: Arc<Mutex<Vec<u8>>>,
    /// The heads of the requests that arrived.
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// Starts it; `answer` makes a whole HTTP response out of a request's head.
    pub async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let inside = serve(
            TlsAcceptor::from(Arc::new(config)),
            Arc::new(answer),
            requests.clone(),
        )
        .await;
        let wire = Arc::new(Mutex::new(Vec::new()));
        let address = relay(inside, wire.clone()).await;
        Self {
            server: HttpsServer {
                address,
                certificate: cert.pem(),
            },
            wire,
            requests,
        }
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    answer: Arc<dyn Fn(&str) -> String + Send + Sync>,
    requests: Arc<Mutex<Vec<String>>>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, answer, requests) = (acceptor.clone(), answer.clone(), requests.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                        let response = answer(&text);
                        requests.lock().unwrap().push(text);
                        if stream.write_all(response.as_bytes()).await.is_err() {
                            return;
                        }
                        let _ = stream.flush().await;
                    }
                }
            });
        }
    });
    address
}

async fn relay(to: SocketAddr, wire: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(to).await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(copy(from_client, to_server, wire.clone()));
            tokio::spawn(copy(from_server, to_client, wire.clone()));
        }
    });
    address
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    wire: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        wire.lock().unwrap().extend_from_slice(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
