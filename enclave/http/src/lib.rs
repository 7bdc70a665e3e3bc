//! A bounded HTTP/1.1 client over byte pipes that somebody else dials.
//!
//! The enclave has no network of its own: its pipes come from the host's dial service (design 6.5), its DNS is the
//! host's, and TLS ends here. Host-side programs use the same client over [`TcpDialer`].
//!
//! What the peer may do is bounded: connecting, answering and every body have a limit in time and size; redirects are
//! not followed, compression is not offered, and a status is data, not an error. Errors never contain the path or the query
//! of a URL, because that is where providers put API keys.
//!
//! [`PublicClient`] is for the requests of policies' components: any public `https` URL, redirects followed, compression
//! undone.
//!
//! ```no_run
//! # async fn f() -> Result<(), newton_http::HttpError> {
//! use newton_http::{DialClass, HttpClient, TcpDialer};
//! use std::sync::Arc;
//! let client = HttpClient::new(Arc::new(TcpDialer), DialClass::Rpc, "http://127.0.0.1:8545")?;
//! let answer: serde_json::Value = client
//!     .post_json("", &serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}))
//!     .await?;
//! # Ok(()) }
//! ```

mod address;
mod client;
mod connect;
mod dial;
mod error;
mod public;
mod url;

pub use address::is_public;
pub use client::{HttpClient, Limits, Request, Response, printable};
pub use connect::{add_root, public_roots, tls_config};
pub use dial::{BoxFuture, BoxStream, ByteStream, DialClass, Dialer, TcpDialer};
pub use error::{HttpError, Stage};
pub use public::{PublicClient, PublicError, PublicLimits, PublicRequest, PublicResponse};
pub use rustls::ClientConfig as TlsConfig;
pub use url::BaseUrl;
