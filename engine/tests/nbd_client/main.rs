//! The NBD client and the `nbd` device against real servers, and against servers that misbehave on purpose.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;
mod forgetful;
mod lost_connections;
mod real_servers;
mod servers;
mod threads;
mod tls;

use std::sync::Arc;

use ashlar_engine::device::remote::{RemoteDevice, RemoteOptions};
use ashlar_engine::device::{self, DeviceError, Request};
use ashlar_engine::io::IoBuf;
use ashlar_engine::nbd::NbdUri;
use ashlar_engine::types::ByteRange;

/// Runs `work` as a data thread does.
fn on_data_thread<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

async fn connect(uri: &NbdUri) -> Arc<RemoteDevice> {
    RemoteDevice::connect(uri, RemoteOptions::default())
        .await
        .unwrap()
}

async fn read(device: &RemoteDevice, at: u64, len: usize) -> Result<Vec<u8>, DeviceError> {
    let completion = device::start(
        device,
        Request::Read {
            at,
            buf: IoBuf::new(len),
        },
    )
    .await;
    completion.result.map(|()| {
        completion
            .buf
            .expect("a read brings its buffer back")
            .as_slice()
            .to_vec()
    })
}

async fn write(device: &RemoteDevice, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
    let data = IoBuf::from_slice(bytes).into_slice();
    device::start(device, Request::Write { at, data, fua: false })
        .await
        .result
}

async fn write_durably(device: &RemoteDevice, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
    let data = IoBuf::from_slice(bytes).into_slice();
    device::start(device, Request::Write { at, data, fua: true })
        .await
        .result
}

async fn flush(device: &RemoteDevice) -> Result<(), DeviceError> {
    device::start(device, Request::Flush).await.result
}

async fn zero(device: &RemoteDevice, start: u64, end: u64, unmap: bool) -> Result<(), DeviceError> {
    device::start(
        device,
        Request::Zero {
            range: ByteRange::between(start, end),
            unmap,
        },
    )
    .await
    .result
}

/// Bytes that differ from place to place.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0u8..=250)
        .cycle()
        .map(|byte| byte.wrapping_mul(31) ^ seed)
        .take(len)
        .collect()
}
