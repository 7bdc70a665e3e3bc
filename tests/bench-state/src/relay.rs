//! The disk protocol over a Unix socket, with a thread that is the host: all of the relay but vsock itself.

use std::path::Path;
use std::thread;

use anyhow::Result;
use newton_pages::testing::FileDevice;
use newton_pages::{BlockDevice, DeviceError, SLOT_BYTES};
use newton_relay::disk::{
    DiskClient, DiskOptions, MAX_BODY, Reply, Request, decode_request, encode_reply,
};
use newton_relay::{
    Acceptor, Connector, ErrorCode, HostError, Stream, WireError, read_frame, write_frame,
};

/// A client of a host that serves `file`.
pub fn connect(dir: &Path, file: &Path) -> Result<DiskClient> {
    let sockets = dir.join("sockets");
    std::fs::create_dir(&sockets)?;
    let acceptor = Acceptor::unix(&sockets.join("host_7001"))?;
    let device = FileDevice::open(file)?;
    thread::spawn(move || {
        while let Ok(mut stream) = acceptor.accept() {
            // The client connects again if anything is wrong.
            let _ = serve(&mut stream, &device);
        }
    });
    let connector = Connector::Unix { dir: sockets };
    Ok(DiskClient::connect(
        connector,
        SLOT_BYTES as u32,
        DiskOptions::default(),
    )?)
}

fn serve(stream: &mut Stream, device: &FileDevice) -> Result<(), WireError> {
    while let Some(body) = read_frame(stream, MAX_BODY)? {
        let (id, request) = decode_request(&body, SLOT_BYTES as u32)?;
        let mut data = Vec::new();
        let done = |result: Result<(), DeviceError>| match result {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(HostError::new(ErrorCode::Io, &error.to_string())),
        };
        let reply = match request {
            Request::Hello { .. } => Reply::Done,
            Request::Read { ranges } => {
                let slots: usize = ranges.iter().map(|r| r.count as usize).sum();
                data.resize(slots * SLOT_BYTES, 0);
                match device.read_slots(&ranges, &mut data) {
                    Ok(()) => Reply::Data(&data),
                    failed => done(failed),
                }
            }
            Request::Write { runs } => done(device.write_slots(&runs)),
            Request::Flush => done(device.flush()),
            Request::Len => Reply::Len(device.len_bytes().unwrap_or_default()),
            Request::SetLen { slots } => done(device.set_len(slots)),
        };
        write_frame(stream, &encode_reply(id, &reply)?, MAX_BODY)?;
    }
    Ok(())
}
