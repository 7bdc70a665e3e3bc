//! The untrusted host relay (design 6.5): starts the enclave and moves bytes for it.
//!
//! | service | port | what it does |
//! |---|---|---|
//! | control | 7000 | hands over the manifest, sends the gas payer's transactions, collects status, metrics and log lines |
//! | disk | 7001 | reads and writes numbered slots of one page file |
//! | dial | 7002 | opens TCP connections to an allow-list |
//! | listen | 7003 | passes TCP connections from outside to the guest |
//!
//! It is trusted for nothing but liveness and parses no payload: pages are ciphertext, TLS ends in the enclave, the manifest is
//! passed on as text. The only secret it holds is the gas payer's key, which can waste gas and nothing else.
//!
//! ```no_run
//! # async fn f() -> Result<(), newton_shim::ShimError> {
//! use newton_shim::{Shim, ShimConfig};
//! let shim = Shim::start(ShimConfig::load("shim.toml".as_ref())?).await?;
//! println!("enclave up after {:?}, API on {}", shim.wait_ready(std::time::Duration::from_secs(60)).await?, shim.api_address());
//! shim.stop().await;
//! # Ok(()) }
//! ```

mod allow;
mod backend;
mod config;
mod control;
mod dial;
mod disk;
mod error;
mod gas;
mod listen;
mod pipe;
mod shim;
mod spawn;
mod status;

pub use allow::{Allow, AllowError};
pub use backend::Accelerator;
pub use config::{
    BackendKind, GasChain, GasConfig, KeySource, Limits, NitroConfig, ProcessConfig, QemuConfig,
    ShimConfig,
};
pub use error::ShimError;
pub use shim::Shim;
pub use status::{EnclaveState, GasStatus, Report, fetch_metrics, fetch_report};
