//! Bounded memory. Alone in its process, because it measures it.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::start;
use newton_relay::asynchronous::AsyncAcceptor;
use newton_relay::ports;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_writer_back() {
    let host = start(|_| ()).await;
    let acceptor = AsyncAcceptor::new(host.guest().accept_on(ports::LISTEN).unwrap()).unwrap();
    let mut outside = TcpStream::connect(host.shim.api_address()).await.unwrap();
    let mut inside = acceptor.accept().await.unwrap();
    let before = resident();
    let mut taken = 0;
    let block = vec![7; 64 * 1024];
    while let Ok(n) = timeout(Duration::from_millis(500), outside.write(&block)).await {
        taken += n.unwrap();
        assert!(taken < 256 << 20, "nothing holds the writer back");
    }
    // What was taken lies in the kernel's buffers; the shim's own memory holds 16 KiB of it.
    let grown = resident().saturating_sub(before);
    assert!(
        grown < 4 << 20,
        "{grown} bytes more while {taken} were taken"
    );
    outside.shutdown().await.unwrap();
    let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match inside.read(&mut buffer).await.unwrap() {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, taken);
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
