#![allow(clippy::unwrap_used)]
use std::path::Path;
use std::thread::JoinHandle;

use super::*;
use crate::Acceptor;
use crate::disk::{decode_request, encode_reply};

const SLOT: u32 = 4096;

/// A host over a byte vector. `faults[n]` is done to the n-th frame of all connections after the Hellos.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    HangUp,
    Damage,
    WrongId,
    Fail,
}

fn host(dir: &Path, faults: Vec<Fault>) -> JoinHandle<Vec<u8>> {
    let acceptor = Acceptor::unix(&dir.join("host_7001")).unwrap();
    thread::spawn(move || {
        let mut file: Vec<u8> = Vec::new();
        let mut faults = faults.into_iter();
        loop {
            let mut stream = acceptor.accept().unwrap();
            let mut slot_bytes = 1;
            while let Ok(Some(body)) = read_frame(&mut stream, MAX_BODY) {
                let (id, request) = decode_request(&body, slot_bytes).unwrap();
                let mut data = Vec::new();
                let hello = matches!(request, Request::Hello { .. });
                let mut reply = Reply::Done;
                match request {
                    Request::Hello { slot_bytes: s, .. } => slot_bytes = s,
                    Request::Read { ranges } => {
                        for range in ranges {
                            let start = range.first as usize * SLOT as usize;
                            let end = start + range.count as usize * SLOT as usize;
                            match file.get(start..end) {
                                Some(bytes) => data.extend_from_slice(bytes),
                                None => reply = out_of_range(),
                            }
                        }
                        if reply == Reply::Done {
                            reply = Reply::Data(&data);
                        }
                    }
                    Request::Write { runs } => {
                        for run in runs {
                            let start = run.first as usize * SLOT as usize;
                            let end = start + run.data.len();
                            if file.len() < end {
                                file.resize(end, 0);
                            }
                            file[start..end].copy_from_slice(run.data);
                        }
                    }
                    Request::Flush => {}
                    Request::Len => reply = Reply::Len(file.len() as u64),
                    Request::SetLen { slots: 0xdead } => return file,
                    Request::SetLen { slots } => file.resize(slots as usize * SLOT as usize, 0),
                }
                let fault = if hello {
                    Fault::None
                } else {
                    faults.next().unwrap_or(Fault::None)
                };
                if fault == Fault::Fail {
                    reply = Reply::Failed(HostError::new(ErrorCode::NoSpace, "full"));
                }
                let id = if fault == Fault::WrongId { id + 1 } else { id };
                let body = encode_reply(id, &reply).unwrap();
                match fault {
                    Fault::HangUp => {
                        break;
                    }
                    Fault::Damage => {
                        let mut bytes = Vec::new();
                        write_frame(&mut bytes, &body, MAX_BODY).unwrap();
                        *bytes.last_mut().unwrap() ^= 1;
                        std::io::Write::write_all(&mut stream, &bytes).unwrap();
                    }
                    _ => {
                        if write_frame(&mut stream, &body, MAX_BODY).is_err() {
                            break;
                        }
                    }
                }
            }
        }
    })
}

fn out_of_range() -> Reply<'static> {
    Reply::Failed(HostError::new(ErrorCode::OutOfRange, "end"))
}

fn client(dir: &Path) -> DiskClient {
    let connector = Connector::Unix {
        dir: dir.to_owned(),
    };
    let options = DiskOptions {
        io_timeout: Duration::from_secs(10),
        patience: Duration::from_secs(10),
        ..DiskOptions::default()
    };
    DiskClient::connect(connector, SLOT, options).unwrap()
}

fn stop(client: &DiskClient, host: JoinHandle<Vec<u8>>) -> Vec<u8> {
    let mut quick = client.options.clone();
    quick.patience = Duration::ZERO;
    let client = DiskClient {
        dial: Box::new(|| Err(io::ErrorKind::ConnectionRefused.into())),
        slot_bytes: SLOT,
        options: quick,
        link: Mutex::new(Link {
            stream: client.link.lock().unwrap().stream.take(),
            next_id: 1_000_000,
        }),
    };
    client.set_len(0xdead).unwrap_err();
    host.join().unwrap()
}

fn pattern(slots: usize) -> Vec<u8> {
    (0..slots * SLOT as usize)
        .map(|i| (i / 7 + i / SLOT as usize) as u8)
        .collect()
}

#[test]
fn many_slots_go_in_several_frames_and_come_back_in_the_order_asked() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), vec![]);
    let disk = client(dir.path());
    let data = pattern(3000);
    let (a, b) = data.split_at(1700 * SLOT as usize);
    disk.write_and_flush(&[
        Run {
            first: 1700,
            data: b,
        },
        Run { first: 0, data: a },
    ])
    .unwrap();
    assert_eq!(disk.len_bytes().unwrap(), data.len() as u64);
    let ranges = [
        SlotRange {
            first: 2990,
            count: 10,
        },
        SlotRange {
            first: 0,
            count: 2500,
        },
    ];
    let mut out = vec![0; 2510 * SLOT as usize];
    disk.read_slots(&ranges, &mut out).unwrap();
    assert!(out[..10 * SLOT as usize] == data[2990 * SLOT as usize..]);
    assert!(out[10 * SLOT as usize..] == data[..2500 * SLOT as usize]);
    let scattered: Vec<SlotRange> = (0..2000)
        .map(|i| SlotRange {
            first: (i * 7) % 3000,
            count: 1,
        })
        .collect();
    let mut out = vec![0; 2000 * SLOT as usize];
    disk.read_slots(&scattered, &mut out).unwrap();
    for (range, got) in scattered.iter().zip(out.chunks(SLOT as usize)) {
        let start = range.first as usize * SLOT as usize;
        assert!(got == &data[start..start + SLOT as usize]);
    }
    assert!(matches!(
        disk.read_slots(
            &[SlotRange {
                first: 2999,
                count: 2
            }],
            &mut out[..8192]
        ),
        Err(DeviceError::OutOfRange)
    ));
    assert!(matches!(
        disk.read_slots(&[], &mut out),
        Err(DeviceError::Length { expected: 0, .. })
    ));
    assert!(stop(&disk, host) == data);
}

#[test]
fn hang_ups_and_damaged_frames_are_repeated_over() {
    let dir = tempfile::tempdir().unwrap();
    use Fault::{Damage, HangUp, None, WrongId};
    let host = host(
        dir.path(),
        vec![
            None, HangUp, None, None, HangUp, Damage, None, None, None, None, WrongId,
        ],
    );
    let disk = client(dir.path());
    let data = pattern(1000);
    disk.write_and_flush(&[Run {
        first: 0,
        data: &data,
    }])
    .unwrap();
    let mut out = vec![0; data.len()];
    disk.read_slots(
        &[SlotRange {
            first: 0,
            count: 1000,
        }],
        &mut out,
    )
    .unwrap();
    assert!(out == data);
    assert!(stop(&disk, host) == data);
}

#[test]
fn a_failure_is_reported_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), vec![Fault::None, Fault::None, Fault::Fail]);
    let disk = client(dir.path());
    let data = pattern(2000);
    let error = disk
        .write_slots(&[Run {
            first: 0,
            data: &data,
        }])
        .unwrap_err();
    assert!(matches!(error, DeviceError::Host(e) if e.code() == ErrorCode::NoSpace));
    disk.write_slots(&[Run {
        first: 0,
        data: &data,
    }])
    .unwrap();
    assert!(stop(&disk, host) == data);
}

#[test]
fn a_host_that_keeps_damaging_frames_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut faults = vec![Fault::None];
    faults.extend([Fault::Damage; 8]);
    let host = host(dir.path(), faults);
    let disk = client(dir.path());
    assert!(matches!(
        disk.flush(),
        Err(DeviceError::Wire(WireError::Checksum { .. }))
    ));
    disk.link.lock().unwrap().stream = None;
    drop(host);
}
