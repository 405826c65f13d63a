//! The `nbd` device: an export of another server as a storage device.
//!
//! Where the server allows several connections (a flush on one then covers all), every data thread opens one of its
//! own when it first submits; otherwise all threads share the one that was opened first, on the thread that opened it.
//!
//! Invariants: no request is ever sent twice. The first connection to end takes the device out of service for good:
//! everything in flight and everything later fails with [`DeviceError::Gone`], because a server that comes back may
//! have lost what was not flushed, and what that means is for the RAID group to decide. A connection that is opened
//! later is used only once the first has proved to be alive after it, so that both lead to the same run of the server.

mod lane;
mod operations;
mod plan;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::{Completion, Device, DeviceError, DeviceInfo, Request, Started};
use crate::nbd::NbdUri;
use crate::nbd::client::{ClientTls, OpenError, OpenOptions};
use crate::types::ByteRange;
use lane::Link;
use plan::Plan;

/// How a remote export is used.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// For `nbds` URIs; goes before the folder that the URI may name.
    pub tls: Option<ClientTls>,
    /// Deadline of each operation.
    pub limit: Duration,
    /// Deadline of connecting.
    pub connect_limit: Duration,
    /// The server keeps what it has answered also when it loses power, so that it need not know flushes.
    pub declared_durable: bool,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            tls: None,
            limit: Duration::from_secs(30),
            connect_limit: Duration::from_secs(10),
            declared_durable: false,
        }
    }
}

/// Why a remote export is not a device.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the export is read-only")]
    ReadOnly,
    #[error("the server cannot flush: nothing would be safe, unless it is declared durable")]
    NoFlush,
    #[error("the server's smallest block has {minimum} bytes; 4096 is the most that is supported")]
    Block { minimum: u32 },
    #[error("the server takes at most {maximum} bytes in a request, less than a block of {block}")]
    Maximum { maximum: u32, block: u32 },
    #[error("the export has {size} bytes, less than a block of {block}")]
    TooSmall { size: u64, block: u32 },
}

/// A remote export in use. Dropping it closes its connections.
#[derive(Debug)]
pub struct RemoteDevice {
    link: Arc<Link>,
}

impl RemoteDevice {
    /// Connects to an export. Must be called on a data thread, within its `LocalSet`; the device works as long as
    /// that thread runs.
    pub async fn connect(uri: &NbdUri, options: RemoteOptions) -> Result<Arc<Self>, ConnectError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let open = OpenOptions {
            tls: options.tls,
            allocation: false,
            limit: options.connect_limit,
        };
        let (stream, export) = crate::nbd::client::open(uri, &open).await?;
        let plan = Plan::of(&export, options.declared_durable)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let link = lane::begin(id, uri.clone(), open, options.limit, plan, (stream, export));
        Ok(Arc::new(Self { link }))
    }

    /// Why the device is out of service; `None` while it works.
    pub fn failure(&self) -> Option<DeviceError> {
        self.link.over().map(|why| DeviceError::Gone(why.to_string()))
    }

    /// Whether `range` may be asked of the device.
    fn fits(&self, at: u64, len: u64) -> bool {
        let DeviceInfo { capacity, block, .. } = self.info();
        ByteRange::new(at, len).is_some_and(|range| range.end() <= capacity && range.is_aligned(block.into()))
    }
}

impl Device for RemoteDevice {
    fn info(&self) -> DeviceInfo {
        self.link.plan().info
    }

    fn submit(&self, request: Request) -> Started {
        let fits = match &request {
            Request::Read { at, buf } => self.fits(*at, buf.len() as u64),
            Request::Write { at, data, .. } => self.fits(*at, data.len() as u64),
            Request::Flush => true,
            Request::Zero { range, .. } => self.fits(range.start(), range.len()),
        };
        let error = if fits {
            self.failure()
        } else {
            Some(DeviceError::Os(Errno::INVAL.raw_os_error()))
        };
        let Some(error) = error else {
            return lane::submit(&self.link, request);
        };
        let buf = if let Request::Read { buf, .. } = request {
            Some(buf)
        } else {
            None
        };
        Started::Done(Completion {
            result: Err(error),
            buf,
        })
    }
}

impl Drop for RemoteDevice {
    fn drop(&mut self) {
        self.link.end("the device was closed".into());
    }
}
