//! What the device does with servers as people run them.

use std::fs::File;
use std::time::Duration;

use ashlar_engine::device::remote::{ConnectError, RemoteDevice, RemoteOptions};
use ashlar_engine::device::{Device as _, DeviceError, DeviceInfo};
use ashlar_engine::io::IoBuf;
use ashlar_engine::nbd::NbdUri;
use ashlar_engine::nbd::client::{
    Command, Connection, Dialect, Extent, NegotiationError, OpenError, OpenOptions, Outcome, Reply, open,
};
use ashlar_engine::nbd::wire;
use ashlar_engine::types::ByteRange;
use tokio::sync::oneshot;

use crate::servers::{Server, nbdkit};
use crate::{connect, flush, on_data_thread, pattern, read, write, write_durably, zero};

const KIB: u64 = 1024;

#[test]
fn what_was_written_is_read_back_and_zeros_are_zeros() {
    let server = nbdkit(&["memory", "10M"]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        let info = DeviceInfo {
            capacity: 10 << 20,
            block: 512,
            zeroes_fast: true,
            volatile_cache: true,
        };
        assert_eq!(device.info(), info);
        let content = pattern(300 << 10, 1);
        write(&device, 4 * KIB, &content).await.unwrap();
        write_durably(&device, 512 * KIB, &content[..512]).await.unwrap();
        flush(&device).await.unwrap();
        assert_eq!(read(&device, 4 * KIB, content.len()).await.unwrap(), content);
        assert_eq!(read(&device, 512 * KIB, 512).await.unwrap(), content[..512]);
        for (start, unmap) in [(4 * KIB, false), (8 * KIB, true)] {
            zero(&device, start, start + 4 * KIB, unmap).await.unwrap();
        }
        assert_eq!(read(&device, 4 * KIB, 8 << 10).await.unwrap(), vec![0; 8 << 10]);
        assert_eq!(
            read(&device, 12 * KIB, 4 << 10).await.unwrap(),
            content[8 << 10..12 << 10]
        );
    });
}

#[test]
fn what_was_flushed_is_in_the_servers_file() {
    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join("disk"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let program = ["nbdkit", "-f", "--exit-with-parent", "file", "disk"];
    let server = Server::on_unix_socket_in(folder, &program);
    let content = pattern(64 << 10, 2);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        write(&device, 8 * KIB, &content).await.unwrap();
        flush(&device).await.unwrap();
    });
    let stored = std::fs::read(server.folder.path().join("disk")).unwrap();
    assert_eq!(stored[8 << 10..72 << 10], content);
}

#[test]
fn many_operations_in_flight_are_told_apart() {
    let server = nbdkit(&["--filter=delay", "memory", "1M", "rdelay=1ms"]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        let content = pattern(1 << 20, 3);
        let writes = content
            .chunks(4096)
            .enumerate()
            .map(|(n, piece)| write(&device, n as u64 * 4096, piece));
        assert!(
            futures_util::future::join_all(writes)
                .await
                .iter()
                .all(Result::is_ok)
        );
        let reads = (0..256).map(|n| read(&device, n * 4096, 4096));
        let pieces = futures_util::future::join_all(reads).await;
        assert_eq!(
            pieces
                .into_iter()
                .map(Result::unwrap)
                .collect::<Vec<_>>()
                .concat(),
            content
        );
    });
}

#[test]
fn requests_larger_than_the_server_takes_are_cut() {
    let policy = [
        "--filter=blocksize-policy",
        "memory",
        "4M",
        "blocksize-minimum=4K",
        "blocksize-preferred=4K",
        "blocksize-maximum=64K",
        "blocksize-error-policy=error",
    ];
    let server = nbdkit(&policy);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        assert_eq!(device.info().block, 4096);
        let content = pattern(1 << 20, 4);
        write_durably(&device, 12 * KIB, &content).await.unwrap();
        assert_eq!(read(&device, 12 * KIB, content.len()).await.unwrap(), content);
        assert_eq!(read(&device, 512, 4096).await, Err(DeviceError::Os(22)));
    });
}

#[test]
fn zeros_are_written_where_the_server_cannot_make_them() {
    let server = nbdkit(&["--filter=nozero", "memory", "8M", "zeromode=none"]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        assert!(!device.info().zeroes_fast);
        write(&device, 0, &pattern(5 << 20, 5)).await.unwrap();
        let (start, end) = (512, (3 << 20) + 1024);
        zero(&device, start, end, true).await.unwrap();
        let content = read(&device, 0, 4 << 20).await.unwrap();
        let expected = pattern(5 << 20, 5);
        assert_eq!(content[..512], expected[..512]);
        assert!(content[512..(3 << 20) + 1024].iter().all(|&byte| byte == 0));
        assert_eq!(content[(3 << 20) + 1024..], expected[(3 << 20) + 1024..4 << 20]);
    });
}

#[test]
fn errors_of_the_server_are_told_and_the_connection_lives_on() {
    let server = nbdkit(&["--filter=error", "memory", "1M", "error-pread-rate=100%"]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        assert_eq!(read(&device, 0, 4096).await, Err(DeviceError::Medium));
        write(&device, 0, &[1; 4096]).await.unwrap();
        assert_eq!(read(&device, 0, 4096).await, Err(DeviceError::Medium));
        assert_eq!(device.failure(), None);
    });
    let full = [
        "--filter=error",
        "memory",
        "1M",
        "error-pwrite=ENOSPC",
        "error-pwrite-rate=100%",
    ];
    let server = nbdkit(&full);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        assert_eq!(write(&device, 0, &[1; 4096]).await, Err(DeviceError::NoSpace));
        assert_eq!(read(&device, 0, 4096).await.unwrap(), [0; 4096]);
    });
}

#[test]
fn requests_outside_the_device_are_refused_without_asking_the_server() {
    let server = nbdkit(&["memory", "1M"]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        let invalid = DeviceError::Os(22);
        assert_eq!(
            write(&device, (1 << 20) - 512, &[1; 1024]).await,
            Err(invalid.clone())
        );
        assert_eq!(
            write(&device, u64::MAX - 511, &[1; 512]).await,
            Err(invalid.clone())
        );
        assert_eq!(read(&device, 1, 512).await, Err(invalid.clone()));
        assert_eq!(read(&device, 0, 511).await, Err(invalid.clone()));
        assert_eq!(zero(&device, 0, 2 << 20, true).await, Err(invalid));
    });
}

#[test]
fn exports_that_cannot_be_devices_are_refused_with_the_reason() {
    let refusal = |server: &Server| {
        on_data_thread(async {
            RemoteDevice::connect(&server.uri(), RemoteOptions::default())
                .await
                .unwrap_err()
        })
    };
    assert!(matches!(
        refusal(&nbdkit(&["-r", "memory", "1M"])),
        ConnectError::ReadOnly
    ));
    assert!(matches!(
        refusal(&nbdkit(&["memory", "100"])),
        ConnectError::TooSmall {
            size: 100,
            block: 512
        }
    ));
    let named = nbdkit(&[
        "--filter=exportname",
        "memory",
        "1M",
        "exportname=a",
        "exportname-strict=true",
    ]);
    let refused = refusal(&named);
    assert!(
        matches!(refused, ConnectError::Open(OpenError::Negotiation(_))),
        "{refused}"
    );
    let mut dead = nbdkit(&["memory", "1M"]);
    dead.kill();
    assert!(matches!(
        refusal(&dead),
        ConnectError::Open(OpenError::Unreachable { .. } | OpenError::Broken(_))
    ));
}

type Calls = Connection<oneshot::Sender<Outcome>>;

/// qemu-nbd with an empty file of 8 GiB as the export `disk`.
fn qemu() -> Server {
    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join("disk"))
        .unwrap()
        .set_len(8 << 30)
        .unwrap();
    let program = [
        "qemu-nbd",
        "--persistent",
        "--shared=2",
        "--format=raw",
        "--export-name=disk",
        "disk",
    ];
    Server::on_unix_socket_in(folder, &program)
}

const WITH_ALLOCATION: OpenOptions = OpenOptions {
    tls: None,
    allocation: true,
    limit: Duration::from_secs(60),
};

#[test]
fn an_export_that_the_server_does_not_have_is_told_apart() {
    let server = qemu();
    let unknown = on_data_thread(open(&server.uri(), &WITH_ALLOCATION))
        .err()
        .unwrap();
    let expected = matches!(
        unknown,
        OpenError::Negotiation(NegotiationError::UnknownExport { .. })
    );
    assert!(expected, "{unknown}");
}

#[test]
fn qemu_speaks_extended_headers_and_tells_which_parts_are_holes() {
    let server = qemu();
    let uri = NbdUri {
        export: "disk".into(),
        ..server.uri()
    };
    on_data_thread(async {
        let (stream, export) = open(&uri, &WITH_ALLOCATION).await.unwrap();
        assert_eq!((export.size, export.dialect), (8 << 30, Dialect::Extended));
        assert!(export.has(wire::TX_SEND_WRITE_ZEROES) && export.context.is_some());
        let (connection, driver) = Calls::new(stream, export);
        tokio::task::spawn_local(driver.run());
        let content = pattern(64 << 10, 6);
        let data = IoBuf::from_slice(&content).into_slice();
        connection
            .call(Command::Write {
                at: 1 << 20,
                data,
                fua: true,
            })
            .await
            .unwrap();
        let range = ByteRange::between(0, 8 << 30);
        let Reply::Status(extents) = connection.call(Command::BlockStatus { range }).await.unwrap() else {
            panic!("block status brings extents");
        };
        assert_eq!(
            extents[0],
            Extent {
                len: 1 << 20,
                hole: true,
                zero: true
            }
        );
        assert_eq!(
            extents[1],
            Extent {
                len: 64 << 10,
                hole: false,
                zero: false
            }
        );
        // More than 32 bits of length.
        connection
            .call(Command::Zero { range, unmap: true })
            .await
            .unwrap();
        connection
            .call(Command::Trim {
                range: ByteRange::between(0, 1 << 20),
            })
            .await
            .unwrap();
        let read = Command::Read {
            at: 1 << 20,
            buf: IoBuf::from_slice(&content),
        };
        let Reply::Read(buf) = connection.call(read).await.unwrap() else {
            panic!("a read brings data")
        };
        assert_eq!(buf.as_slice(), vec![0; 64 << 10]);
    });
}
