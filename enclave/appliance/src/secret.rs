//! How a boot comes by the master secret: it makes it (birth), or its holders give it back (recovery) (design 5.2).

use std::sync::Arc;

use anyhow::{Context, Result};
use newton_chain::{ChainView, MAX_RANGE, decode};
use newton_keys::{MasterSecret, shares};
use newton_types::{
    B256,
    events::RegistryEvent,
    manifest::{Chain, ShareHolders},
};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::appliance::{Appliance, SealedShares};

/// Gets the master secret. Waits for share holders if the authority chain says that a secret exists.
pub async fn obtain(
    app: &Arc<Appliance>,
    view: &dyn ChainView,
) -> Result<(MasterSecret, Option<SealedShares>)> {
    let holders = &app.consensus.consensus.share_holders;
    match commitment(view, app.authority()).await? {
        None => birth(app, holders),
        Some(commitment) => {
            tracing::info!(%commitment, "a master secret exists: waiting for its share holders");
            let (sender, mut receiver) = mpsc::channel(1);
            app.await_shares(holders.threshold, commitment.0, sender);
            let secret = receiver.recv().await.context("no secret will come")?;
            tracing::info!("the master secret was recovered and reproduces its commitment");
            Ok((secret, None))
        }
    }
}

fn birth(app: &Appliance, holders: &ShareHolders) -> Result<(MasterSecret, Option<SealedShares>)> {
    let mut bytes = Zeroizing::new([0; 32]);
    app.nsm
        .random(bytes.as_mut_slice())
        .context("randomness for the master secret")?;
    let secret = MasterSecret::take(&mut bytes)?;
    let keys: Vec<[u8; 32]> = holders.public_keys.iter().map(|k| k.0).collect();
    let sealed = SealedShares {
        commitment: secret.commitment(),
        threshold: holders.threshold,
        shares: shares::split(&secret, holders.threshold, &keys)?,
    };
    tracing::info!(
        commitment = %B256::from(sealed.commitment),
        threshold = sealed.threshold,
        holders = keys.len(),
        "made the master secret; its holders must take their shares while this boot lives"
    );
    Ok((secret, Some(sealed)))
}

/// The published commitment, read from the key registry's finalized events.
async fn commitment(view: &dyn ChainView, authority: &Chain) -> Result<Option<B256>> {
    let finalized = view.finalized().await?;
    let addresses = [authority.contracts.key_registry];
    let mut from = authority.first_block;
    while from <= finalized.number {
        let to = finalized.number.min(from + MAX_RANGE - 1);
        let headers = view.headers(from, to).await?;
        for log in view.logs(&addresses, &headers).await? {
            if let Some(RegistryEvent::KeyEpochPublished { msk_commitment, .. }) =
                decode(&authority.contracts, &log)?
            {
                return Ok(Some(msk_commitment));
            }
        }
        from = to + 1;
    }
    Ok(None)
}
