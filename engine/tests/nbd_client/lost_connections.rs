//! What happens to operations when a server dies, hangs or breaks the protocol.

use std::time::Duration;

use ashlar_engine::device::remote::{ConnectError, RemoteDevice, RemoteOptions};
use ashlar_engine::device::{Device as _, DeviceError, slots};
use ashlar_engine::nbd::wire;

use crate::fake::{ALL, Asked, Fake, FakeConnection};
use crate::servers::nbdkit;
use crate::{connect, flush, on_data_thread, read, write, write_durably};

async fn connected(fake: &Fake, flags: u16) -> (std::sync::Arc<RemoteDevice>, FakeConnection) {
    let uri = fake.uri();
    tokio::join!(connect(&uri), fake.accept(flags))
}

fn is_gone<T>(result: &Result<T, DeviceError>) -> bool {
    matches!(result, Err(DeviceError::Gone(_)))
}

#[test]
fn a_killed_server_fails_everything_in_flight_and_the_device_for_good() {
    let mut server = nbdkit(&["--filter=delay", "memory", "1M", "rdelay=3600"]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        write(&device, 0, &[1; 512]).await.unwrap();
        let reads = futures_util::future::join_all((0..8).map(|n| read(&device, n * 512, 512)));
        let killing = async { server.kill() };
        let (results, ()) = tokio::join!(reads, killing);
        assert!(results.iter().all(is_gone));
        assert!(is_gone(&flush(&device).await));
        assert!(is_gone(&write(&device, 0, &[2; 512]).await));
        assert!(matches!(device.failure(), Some(DeviceError::Gone(_))));
    });
}

#[test]
fn nothing_is_sent_again_after_the_connection_is_lost() {
    on_data_thread(async {
        let fake = Fake::new();
        let (device, mut server) = connected(&fake, ALL).await;
        let dying = async {
            for _ in 0..3 {
                assert_eq!(server.asked().await.unwrap().kind, wire::CMD_WRITE);
            }
            drop(server);
        };
        let writes = futures_util::future::join_all((0..3).map(|n| write(&device, n * 512, &[7; 512])));
        let (results, ()) = tokio::join!(writes, dying);
        assert!(results.iter().all(is_gone));
        assert!(is_gone(&write(&device, 0, &[7; 512]).await));
        drop(device);
        assert!(!fake.is_wanted(), "the client connected again");
    });
}

#[test]
fn data_that_ends_early_fails_the_read() {
    on_data_thread(async {
        let fake = Fake::new();
        let (device, mut server) = connected(&fake, ALL).await;
        let half_answer = async {
            let Asked { cookie, len, .. } = server.asked().await.unwrap();
            server.answer(cookie, &vec![1; len as usize / 2]).await;
            drop(server);
        };
        let (result, ()) = tokio::join!(read(&device, 0, 4096), half_answer);
        assert!(is_gone(&result));
    });
}

#[test]
fn an_answer_to_nothing_ends_the_connection_and_fails_what_is_in_flight() {
    on_data_thread(async {
        let fake = Fake::new();
        let (device, mut server) = connected(&fake, ALL).await;
        let wrong_answer = async {
            let Asked { cookie, .. } = server.asked().await.unwrap();
            server.answer(cookie + 1, &[]).await;
            assert_eq!(server.asked().await, None, "the client closes the connection");
        };
        let (result, ()) = tokio::join!(write(&device, 0, &[1; 512]), wrong_answer);
        assert!(is_gone(&result));
    });
}

#[test]
fn a_silent_server_meets_the_deadline_and_its_late_answer_harms_nobody() {
    on_data_thread(async {
        let fake = Fake::new();
        let uri = fake.uri();
        let options = RemoteOptions {
            limit: Duration::from_secs(1),
            ..RemoteOptions::default()
        };
        let (device, mut server) = tokio::join!(RemoteDevice::connect(&uri, options), fake.accept(ALL));
        let device = device.unwrap();
        let silence = async {
            let late = server.asked().await.unwrap();
            (0..10).for_each(|_| slots::tick());
            late
        };
        let (result, late) = tokio::join!(read(&device, 0, 512), silence);
        assert_eq!(result, Err(DeviceError::Timeout));
        let both = async {
            let next = server.asked().await.unwrap();
            server.answer(late.cookie, &[1; 512]).await;
            server.answer(next.cookie, &[2; 512]).await;
        };
        let (result, ()) = tokio::join!(read(&device, 512, 512), both);
        assert_eq!(result.unwrap(), [2; 512]);
    });
}

#[test]
fn a_durable_write_is_a_write_and_a_flush_where_the_server_knows_no_fua() {
    on_data_thread(async {
        let fake = Fake::new();
        let (device, mut server) = connected(&fake, ALL & !wire::TX_SEND_FUA).await;
        let serving = async {
            let first = server.asked().await.unwrap();
            assert_eq!((first.kind, first.flags), (wire::CMD_WRITE, 0));
            server.answer(first.cookie, &[]).await;
            let second = server.asked().await.unwrap();
            assert_eq!(second.kind, wire::CMD_FLUSH);
            server.answer(second.cookie, &[]).await;
        };
        let (result, ()) = tokio::join!(write_durably(&device, 0, &[1; 512]), serving);
        result.unwrap();
    });
}

#[test]
fn a_server_without_flush_is_a_device_only_where_it_is_declared_durable() {
    on_data_thread(async {
        let fake = Fake::new();
        let uri = fake.uri();
        let flags = ALL & !wire::TX_SEND_FLUSH;
        let refused = RemoteDevice::connect(&uri, RemoteOptions::default());
        let (refused, _server) = tokio::join!(refused, fake.accept(flags));
        assert!(matches!(refused, Err(ConnectError::NoFlush)));
        let options = RemoteOptions {
            declared_durable: true,
            ..RemoteOptions::default()
        };
        let (device, _server) = tokio::join!(RemoteDevice::connect(&uri, options), fake.accept(flags));
        let device = device.unwrap();
        assert!(!device.info().volatile_cache);
        flush(&device).await.unwrap();
    });
}

#[test]
fn a_dropped_device_says_goodbye() {
    on_data_thread(async {
        let fake = Fake::new();
        let (device, mut server) = connected(&fake, ALL).await;
        drop(device);
        assert_eq!(server.asked().await.unwrap().kind, wire::CMD_DISC);
        assert_eq!(server.asked().await, None);
    });
}
