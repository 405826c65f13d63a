//! One device used by several data threads.

use std::sync::Arc;

use ashlar_engine::device::DeviceError;
use ashlar_engine::device::remote::RemoteDevice;
use ashlar_engine::nbd::wire;
use tokio::sync::oneshot;

use crate::fake::{ALL, Asked, Fake};
use crate::servers::nbdkit;
use crate::{connect, flush, on_data_thread, pattern, read, write};

/// Runs `there` as another data thread does, while this thread goes on with its tasks.
async fn on_another_thread<F, T>(
    device: &Arc<RemoteDevice>,
    there: impl FnOnce(Arc<RemoteDevice>) -> F + Send + 'static,
) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let device = Arc::clone(device);
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .spawn(move || drop(done.send(on_data_thread(async { there(device).await }))))
        .unwrap();
    let result = result.await.unwrap();
    thread.join().unwrap();
    result
}

#[test]
fn what_one_thread_wrote_another_flushes_and_reads() {
    let server = nbdkit(&["memory", "1M"]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        write(&device, 0, &pattern(4096, 1)).await.unwrap();
        let seen = on_another_thread(&device, |device| async move {
            write(&device, 4096, &pattern(4096, 2)).await.unwrap();
            flush(&device).await.unwrap();
            read(&device, 0, 4096).await
        });
        assert_eq!(seen.await.unwrap(), pattern(4096, 1));
    });
}

#[test]
fn threads_share_one_connection_where_a_flush_covers_only_its_own() {
    // The server refuses a second client.
    let server = nbdkit(&[
        "--filter=limit",
        "--filter=multi-conn",
        "memory",
        "1M",
        "limit=1",
        "multi-conn-mode=disable",
    ]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        let seen = on_another_thread(&device, |device| async move {
            let writes = (0..16).map(|n| {
                let device = &device;
                async move { write(device, n * 512, &[5; 512]).await }
            });
            assert!(
                futures_util::future::join_all(writes)
                    .await
                    .iter()
                    .all(Result::is_ok)
            );
            flush(&device).await.unwrap();
            read(&device, 0, 8192).await
        });
        assert_eq!(seen.await.unwrap(), [5; 8192]);
        assert_eq!(read(&device, 512, 512).await.unwrap(), [5; 512]);
    });
}

#[test]
fn a_lost_shared_connection_fails_what_other_threads_have_in_flight() {
    on_data_thread(async {
        let fake = Fake::new();
        let uri = fake.uri();
        let (device, mut server) = tokio::join!(connect(&uri), fake.accept(ALL & !wire::TX_CAN_MULTI_CONN));
        let dying = async {
            server.asked().await.unwrap();
            drop(server);
        };
        let elsewhere = on_another_thread(
            &device,
            |device| async move { write(&device, 0, &[1; 512]).await },
        );
        let (result, ()) = tokio::join!(elsewhere, dying);
        assert!(matches!(result, Err(DeviceError::Gone(_))));
    });
}

#[test]
fn a_second_connection_is_refused_where_it_cannot_be_had() {
    let server = nbdkit(&["--filter=limit", "memory", "1M", "limit=1"]);
    on_data_thread(async {
        let device = connect(&server.uri()).await;
        let result = on_another_thread(&device, |device| async move { read(&device, 0, 512).await }).await;
        assert!(matches!(result, Err(DeviceError::Gone(_))));
        assert!(device.failure().is_some());
    });
}

#[test]
fn a_connection_opened_after_the_first_was_lost_is_never_used() {
    on_data_thread(async {
        let fake = Fake::new();
        let uri = fake.uri();
        let (device, mut first) = tokio::join!(connect(&uri), fake.accept(ALL));
        // The server restarts while the first connection is idle; the second one leads to its next run.
        let restarting = async {
            let mut second = fake.accept(ALL).await;
            let Asked { kind, at, .. } = first.asked().await.unwrap();
            assert_eq!((kind, at), (wire::CMD_READ, 0), "the first connection is probed");
            drop(first);
            assert_eq!(second.asked().await, None, "nothing is asked of the second");
        };
        let elsewhere = on_another_thread(&device, |device| async move { flush(&device).await });
        let (result, ()) = tokio::join!(elsewhere, restarting);
        assert!(matches!(result, Err(DeviceError::Gone(_))));
    });
}

#[test]
fn a_device_outlives_a_thread_but_not_the_one_that_connected_it() {
    let server = nbdkit(&["memory", "1M"]);
    let device = on_data_thread(async {
        let device = connect(&server.uri()).await;
        on_another_thread(&device, |device| async move { read(&device, 0, 512).await })
            .await
            .unwrap();
        read(&device, 0, 512).await.unwrap();
        device
    });
    let result = on_data_thread(async { read(&device, 0, 512).await });
    assert!(matches!(result, Err(DeviceError::Gone(_))));
}
