//! Other operators' enclaves: where they are reached, and how they are asked (design 4.8).
//!
//! What a peer says is never believed: votes are verified against the chain's keys, state against the chain's roots.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use newton_api::client::{Client, Open, Opening, Pin};
use newton_http::{DialClass, Dialer};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One peer's address and the way to it through the host.
#[derive(Clone)]
pub struct Peer {
    /// `host:port`, as the local manifest names it.
    pub address: String,
    open: Arc<dyn Open>,
}

/// The peers of a local manifest.
pub fn peers(addresses: &[String], dialer: Arc<dyn Dialer>) -> Vec<Peer> {
    let open: Arc<dyn Open> = Arc::new(Through(dialer));
    addresses
        .iter()
        .map(|address| Peer {
            address: address.clone(),
            open: open.clone(),
        })
        .collect()
}

impl Peer {
    /// Asks for what is verified by its content, whoever answers.
    pub async fn ask<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T> {
        self.call(&self.client(Pin::Learn), method, params).await
    }

    /// A client that learns who answers, or insists on it.
    pub fn client(&self, pin: Pin) -> Client {
        Client::over(self.open.clone(), &self.address, pin)
    }

    /// A call within the time that a peer gets.
    pub async fn call<T: DeserializeOwned>(
        &self,
        client: &Client,
        method: &str,
        params: Value,
    ) -> Result<T> {
        let answer = tokio::time::timeout(PATIENCE, client.call(method, params))
            .await
            .with_context(|| format!("{} does not answer {method}", self.address))?
            .with_context(|| format!("{}: {method}", self.address))?;
        serde_json::from_value(answer)
            .with_context(|| format!("{}: {method}'s answer", self.address))
    }
}

/// Why a peer was of no use, for a log line or `newt_health`. Errors quote what it answered, so this is cut to a bearable length.
pub fn said(e: &anyhow::Error) -> String {
    const LONGEST: usize = 600;
    let text = format!("{e:#}");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text,
    }
}

/// Connections of the class `peer`.
struct Through(Arc<dyn Dialer>);

impl Open for Through {
    fn open<'a>(&'a self, address: &'a str) -> Opening<'a> {
        Box::pin(async move {
            let (host, port) = address
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host, port.parse().ok()?)))
                .ok_or_else(|| io::Error::other(format!("{address} is not host:port")))?;
            let stream = self.0.dial(DialClass::Peer, host, port).await?;
            Ok(Box::new(stream) as Box<dyn newton_api::client::Stream>)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_answers_does_not_fill_the_log() {
        let short = anyhow::anyhow!("no").context("why");
        assert_eq!(said(&short), "why: no");
        let long = said(&anyhow::anyhow!("é".repeat(1 << 20)));
        assert_eq!(long.chars().count(), 601);
    }
}
