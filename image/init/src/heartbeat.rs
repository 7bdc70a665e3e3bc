//! The sign of life `nitro-cli` waits for: it ends an enclave that does not give it.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use crate::{say, sys};

/// The parent on a Nitro host. QEMU's vsock daemon has nobody there, and nobody waits for the heartbeat.
const PARENT_CID: u32 = 3;
const PORT: u32 = 9000;
const HEARTBEAT: u8 = 0xb7;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the heartbeat without keeping the boot waiting. A host that does not listen changes nothing in here.
pub fn send_in_background() {
    let sender = thread::Builder::new()
        .name("heartbeat".to_owned())
        .spawn(|| {
            if let Err(error) = send() {
                say(&format!(
                    "no heartbeat to CID {PARENT_CID}, as always under QEMU: {error}"
                ));
            }
        });
    if let Err(error) = sender {
        say(&format!("no thread for the heartbeat: {error}"));
    }
}

fn send() -> std::io::Result<()> {
    let mut stream = File::from(sys::connect_vsock(PARENT_CID, PORT, TIMEOUT)?);
    stream.write_all(&[HEARTBEAT])?;
    // The host answers with the same byte. It is read so that the connection is not reset under the host's hands.
    stream.read_exact(&mut [0])
}
