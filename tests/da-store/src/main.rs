//! The development DA store as a program.

use anyhow::Context;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A development data-availability store with the EigenDA proxy's REST interface.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:3100")]
    listen: SocketAddr,
    /// Folder of the payloads.
    #[arg(long)]
    dir: PathBuf,
    /// Reference block that certificates name.
    #[arg(long, default_value_t = newton_da_store::DEFAULT_REFERENCE_BLOCK)]
    reference_block: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let store = newton_da_store::serve_at(listener, &arguments.dir, arguments.reference_block)
        .with_context(|| format!("cannot use the folder {}", arguments.dir.display()))?;
    println!(
        "newton-da-store: development only, listening on {}",
        store.url()
    );
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    store.stop().await;
    Ok(())
}
