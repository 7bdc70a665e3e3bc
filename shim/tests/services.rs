//! Disk, dial and listen over Unix sockets, with the enclave's own clients.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{blocking, start};
use newton_relay::asynchronous::{AsyncAcceptor, AsyncStream, dial, read_frame, write_frame};
use newton_relay::dial::{Class, DialError, MAX_BODY, Target, decode_answer};
use newton_relay::disk::{
    self, BlockDevice, DeviceError, DiskClient, DiskOptions, Reply, Request, Run, SlotRange,
};
use newton_relay::{Connector, ErrorCode, ports};
use newton_shim::{Shim, ShimError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SLOT: u32 = 512;
const PATIENCE: Duration = Duration::from_secs(10);

fn disk_client(guest: Connector) -> DiskClient {
    DiskClient::connect(
        guest,
        SLOT,
        DiskOptions {
            io_timeout: PATIENCE,
            patience: PATIENCE,
            ..DiskOptions::default()
        },
    )
    .unwrap()
}

fn read(disk: &DiskClient, first: u64, count: u32) -> Result<Vec<u8>, DeviceError> {
    let mut out = vec![0xee; (count * SLOT) as usize];
    disk.read_slots(&[SlotRange { first, count }], &mut out)
        .map(|()| out)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_file_keeps_what_is_written() {
    let host = start(|c| c.limits.page_file_bytes = 100 * u64::from(SLOT)).await;
    let (guest, file) = (host.guest(), host.dir.path().join("pages"));
    blocking(move || {
        let disk = disk_client(guest);
        assert_eq!(disk.len_bytes().unwrap(), 0);
        let (a, b) = (vec![1; SLOT as usize], vec![2; 2 * SLOT as usize]);
        disk.write_and_flush(&[Run { first: 5, data: &a }, Run { first: 0, data: &b }])
            .unwrap();
        assert_eq!(disk.len_bytes().unwrap(), 6 * u64::from(SLOT));
        // A hole reads as zeros; the answer has the order of the question.
        let mut out = vec![0xee; 4 * SLOT as usize];
        let ranges = [
            SlotRange { first: 4, count: 2 },
            SlotRange { first: 1, count: 2 },
        ];
        disk.read_slots(&ranges, &mut out).unwrap();
        let kinds: Vec<u8> = out.chunks(SLOT as usize).map(|slot| slot[0]).collect();
        assert_eq!(kinds, [0, 1, 2, 0]);
        assert!(matches!(read(&disk, 5, 2), Err(DeviceError::OutOfRange)));
        assert!(matches!(
            read(&disk, u64::MAX / 2, 1),
            Err(DeviceError::OutOfRange)
        ));
        // Beyond the limit nothing is written, and the connection goes on.
        let error = disk
            .write_slots(&[Run {
                first: 99,
                data: &b,
            }])
            .unwrap_err();
        assert!(matches!(error, DeviceError::Host(e) if e.code() == ErrorCode::NoSpace));
        let error = disk.set_len(101).unwrap_err();
        assert!(matches!(error, DeviceError::Host(e) if e.code() == ErrorCode::NoSpace));
        disk.set_len(2).unwrap();
        assert_eq!(disk.len_bytes().unwrap(), 2 * u64::from(SLOT));
        disk.set_len(100).unwrap();
        disk.flush().unwrap();
        assert_eq!(read(&disk, 99, 1).unwrap(), vec![0; SLOT as usize]);
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(bytes.len(), 100 * SLOT as usize);
        assert!(
            bytes[..2 * SLOT as usize].iter().all(|b| *b == 2)
                && bytes[2 * SLOT as usize..].iter().all(|b| *b == 0)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_shim_a_page_file_and_the_disk_survives_a_shim_restart() {
    let host = start(|_| ()).await;
    let other = tempfile::tempdir().unwrap();
    let mut config = common::config(other.path());
    config.page_file = host.dir.path().join("pages");
    assert!(matches!(
        Shim::start(config).await,
        Err(ShimError::PageFileInUse { .. })
    ));

    let guest = host.guest();
    let disk = blocking(move || {
        let disk = disk_client(guest);
        disk.write_slots(&[Run {
            first: 0,
            data: &[3; SLOT as usize],
        }])
        .unwrap();
        disk
    })
    .await;
    host.shim.restart_services().await.unwrap();
    blocking(move || assert_eq!(read(&disk, 0, 1).unwrap(), [3; SLOT as usize])).await;
}

/// A bare connection to the disk service.
struct Bare(AsyncStream);

impl Bare {
    fn connect(guest: &Connector) -> Self {
        Self(AsyncStream::new(guest.connect(ports::DISK).unwrap()).unwrap())
    }

    async fn ask(&mut self, id: u64, request: &Request<'_>) {
        let body = disk::encode_request(id, request, SLOT).unwrap();
        write_frame(&mut self.0, &body, disk::MAX_BODY)
            .await
            .unwrap();
    }

    async fn told(&mut self) -> Option<Vec<u8>> {
        timeout(PATIENCE, read_frame(&mut self.0, disk::MAX_BODY))
            .await
            .unwrap()
            .unwrap_or(None)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_answered_in_order_and_bad_ones_end_the_connection() {
    let host = start(|_| ()).await;
    let guest = host.guest();
    let failed = |body: Vec<u8>, code: ErrorCode| {
        let (id, reply) = disk::decode_reply(&body).unwrap();
        assert!(
            matches!(&reply, Reply::Failed(e) if e.code() == code),
            "{reply:?}"
        );
        id
    };
    let hello = Request::Hello {
        version: disk::VERSION,
        slot_bytes: SLOT,
    };
    let mut bare = Bare::connect(&guest);
    bare.ask(1, &Request::Len).await;
    assert_eq!(failed(bare.told().await.unwrap(), ErrorCode::Malformed), 1);
    bare.ask(
        2,
        &Request::Hello {
            version: 9,
            slot_bytes: SLOT,
        },
    )
    .await;
    assert_eq!(failed(bare.told().await.unwrap(), ErrorCode::Version), 2);
    bare.ask(3, &hello).await;
    assert_eq!(
        bare.told().await.unwrap(),
        disk::encode_reply(3, &Reply::Done).unwrap()
    );
    bare.ask(4, &hello).await;
    assert_eq!(failed(bare.told().await.unwrap(), ErrorCode::Malformed), 4);
    // Many in flight: each sees what those before it did.
    let data = [9; SLOT as usize];
    for n in 0..50 {
        bare.ask(
            10 + 2 * n,
            &Request::Write {
                runs: vec![Run {
                    first: n,
                    data: &data,
                }],
            },
        )
        .await;
        bare.ask(11 + 2 * n, &Request::Len).await;
    }
    for n in 0..50 {
        assert_eq!(
            bare.told().await.unwrap(),
            disk::encode_reply(10 + 2 * n, &Reply::Done).unwrap()
        );
        let length = Reply::Len((n + 1) * u64::from(SLOT));
        assert_eq!(
            bare.told().await.unwrap(),
            disk::encode_reply(11 + 2 * n, &length).unwrap()
        );
    }
    // An unknown kind, a wrong checksum, a length beyond the limit.
    let unknown = [&[77][..], &7u64.to_le_bytes()].concat();
    write_frame(&mut bare.0, &unknown, disk::MAX_BODY)
        .await
        .unwrap();
    assert_eq!(bare.told().await, None);
    for bytes in [[1, 0, 0, 0, 0, 0, 0, 0, 5], [0, 0, 0, 0xff, 0, 0, 0, 0, 5]] {
        let mut bare = Bare::connect(&guest);
        bare.0.write_all(&bytes).await.unwrap();
        assert_eq!(bare.told().await, None);
    }
    let mut bare = Bare::connect(&guest);
    bare.ask(1, &hello).await;
    assert!(bare.told().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_disk_connection_fences_the_one_before() {
    let host = start(|_| ()).await;
    let guest = host.guest();
    let hello = Request::Hello {
        version: disk::VERSION,
        slot_bytes: SLOT,
    };
    let mut old = Bare::connect(&guest);
    old.ask(1, &hello).await;
    old.told().await.unwrap();
    let mut new = Bare::connect(&guest);
    new.ask(1, &hello).await;
    new.told().await.unwrap();
    // From here on nothing of the old one can reach the file.
    let body = disk::encode_request(2, &Request::SetLen { slots: 8 }, SLOT).unwrap();
    let _ = write_frame(&mut old.0, &body, disk::MAX_BODY).await;
    assert_eq!(old.told().await, None);
    new.ask(2, &Request::Len).await;
    assert_eq!(
        new.told().await.unwrap(),
        disk::encode_reply(2, &Reply::Len(0)).unwrap()
    );
}

async fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // Answers only after the question has ended: half-close must come through.
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    port
}

async fn try_dial(
    guest: &Connector,
    class: Class,
    host: &str,
    port: u16,
) -> Result<AsyncStream, DialError> {
    dial(guest, &Target::new(class, host, port).unwrap(), PATIENCE).await
}

fn code(result: Result<AsyncStream, DialError>) -> ErrorCode {
    match result.unwrap_err() {
        DialError::Refused { source, .. } => source.code(),
        error => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dialling_what_is_allowed_and_nothing_else() {
    let port = echo_server().await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let host = start(|c| {
        c.allow.rpc = vec![
            format!("127.0.0.1:{port}"),
            format!("localhost:{port}"),
            format!("127.0.0.1:{closed}"),
        ];
        c.allow.da = vec!["no-such-name.invalid:80".into()];
        c.allow.public = true;
    })
    .await;
    let guest = host.guest();
    for name in ["127.0.0.1", "LOCALHOST"] {
        let mut stream = try_dial(&guest, Class::Rpc, name, port).await.unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let (mut reading, mut writing) = tokio::io::split(&mut stream);
        writing.write_all(&sent).await.unwrap();
        writing.shutdown().await.unwrap();
        let mut got = Vec::new();
        timeout(PATIENCE, reading.read_to_end(&mut got))
            .await
            .unwrap()
            .unwrap();
        assert!(got == sent);
    }
    assert_eq!(
        code(try_dial(&guest, Class::Da, "127.0.0.1", port).await),
        ErrorCode::NotAllowed
    );
    assert_eq!(
        code(try_dial(&guest, Class::Rpc, "127.0.0.1", 1).await),
        ErrorCode::NotAllowed
    );
    assert_eq!(
        code(try_dial(&guest, Class::Public, "127.0.0.1", 443).await),
        ErrorCode::NotAllowed
    );
    assert_eq!(
        code(try_dial(&guest, Class::Public, "localhost", 443).await),
        ErrorCode::NotAllowed
    );
    assert_eq!(
        code(try_dial(&guest, Class::Public, "1.1.1.1", 80).await),
        ErrorCode::NotAllowed
    );
    assert_eq!(
        code(try_dial(&guest, Class::Rpc, "127.0.0.1", closed).await),
        ErrorCode::Unreachable
    );
    assert_eq!(
        code(try_dial(&guest, Class::Da, "no-such-name.invalid", 80).await),
        ErrorCode::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dial_limits_and_bad_headers() {
    let port = echo_server().await;
    let host = start(|c| {
        c.allow.rpc = vec![format!("127.0.0.1:{port}")];
        c.limits.dial_connections = 2;
    })
    .await;
    let guest = host.guest();
    let first = try_dial(&guest, Class::Rpc, "127.0.0.1", port)
        .await
        .unwrap();
    let _second = try_dial(&guest, Class::Rpc, "127.0.0.1", port)
        .await
        .unwrap();
    assert_eq!(
        code(try_dial(&guest, Class::Rpc, "127.0.0.1", port).await),
        ErrorCode::Busy
    );
    drop(first);
    let mut tries = 0;
    while try_dial(&guest, Class::Rpc, "127.0.0.1", port)
        .await
        .is_err()
    {
        tries += 1;
        assert!(tries < 100, "the slot never came back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let mut stream = AsyncStream::new(guest.connect(ports::DIAL).unwrap()).unwrap();
    write_frame(&mut stream, &[1, 0, 99, 80, 0, 0, 0, 0, 0], MAX_BODY)
        .await
        .unwrap();
    let answer = read_frame(&mut stream, MAX_BODY).await.unwrap().unwrap();
    assert_eq!(
        decode_answer(&answer).unwrap().unwrap_err().code(),
        ErrorCode::Malformed
    );
    let mut stream = AsyncStream::new(guest.connect(ports::DIAL).unwrap()).unwrap();
    stream
        .write_all(&(MAX_BODY as u32 + 1).to_le_bytes())
        .await
        .unwrap();
    stream.write_all(&[0; 4]).await.unwrap();
    let mut end = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut end))
        .await
        .unwrap()
        .unwrap();
    assert!(end.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_passes_bytes_and_half_close() {
    let host = start(|_| ()).await;
    let acceptor = AsyncAcceptor::new(host.guest().accept_on(ports::LISTEN).unwrap()).unwrap();
    let mut outside = TcpStream::connect(host.shim.api_address()).await.unwrap();
    let mut inside = acceptor.accept().await.unwrap();
    outside.write_all(b"question").await.unwrap();
    outside.shutdown().await.unwrap();
    let mut got = String::new();
    inside.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "question");
    inside.write_all(b"answer").await.unwrap();
    inside.shutdown().await.unwrap();
    got.clear();
    outside.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "answer");

    // Nobody inside: the connection ends soon, and once somebody is there it works again.
    drop(acceptor);
    std::fs::remove_file(host.dir.path().join("guest_7003")).unwrap();
    let mut outside = TcpStream::connect(host.shim.api_address()).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, outside.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    let acceptor = AsyncAcceptor::new(host.guest().accept_on(ports::LISTEN).unwrap()).unwrap();
    let _outside = TcpStream::connect(host.shim.api_address()).await.unwrap();
    timeout(PATIENCE, acceptor.accept()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_limits_let_others_wait() {
    let host = start(|c| c.limits.listen_connections = 2).await;
    let acceptor = AsyncAcceptor::new(host.guest().accept_on(ports::LISTEN).unwrap()).unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(host.shim.api_address()).await.unwrap());
    }
    let mut inside = vec![
        acceptor.accept().await.unwrap(),
        acceptor.accept().await.unwrap(),
    ];
    assert!(
        timeout(Duration::from_millis(200), acceptor.accept())
            .await
            .is_err()
    );
    open.clear();
    inside.clear();
    // Both ends of two connections are gone: the third gets its turn.
    timeout(PATIENCE, acceptor.accept()).await.unwrap().unwrap();
}
