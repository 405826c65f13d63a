//! A device in use: its identity, and the latch that takes it out of service at its first failure.
//!
//! Invariants: after the latch has closed nothing is sent to the device any more; it opens only by opening the device
//! anew. A flush that failed closes it (R5): a later one could succeed without the lost writes. A place that cannot be
//! read (medium error) does not: other places are fine, and the RAID group writes the place anew. A file that was cut off
//! while it was open is found before what it lacks passes for zeros: nothing is ever written at a device's very end, so
//! that it stays too short. A handle that was [superseded](DeviceHandle::supersede) changes nothing on the device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Completion, Device, DeviceError, DeviceInfo, ErrorCounts, Io, Request, signature};
use crate::io::{BufSlice, IoBuf};
use crate::statistics::{Activity, Counters, Kind};
use crate::types::{ByteRange, DeviceId};

/// An opened device with its latch. Shared by everything that uses the device.
pub struct DeviceHandle {
    id: DeviceId,
    device: Arc<dyn Device>,
    failed: OnceLock<Failure>,
    counters: Counters,
    /// Its length can become less.
    shrinks: bool,
    /// Taken only where something failed.
    errors: Mutex<ErrorCounts>,
    doubts: Doubts,
    is_superseded: AtomicBool,
}

/// Why what a device has may be another thing than what it shows now.
#[derive(Debug, Default)]
struct Doubts {
    /// It did not answer something in time: that may be carried out at any later time.
    timed_out: AtomicBool,
    /// It answered that it could not flush: what it has may yet be lost, whatever it answers afterwards.
    could_not_flush: AtomicBool,
}

/// Why the latch closed.
struct Failure {
    why: String,
    is_lost: bool,
}

/// Whether a failure of this kind takes the device out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Local,
    Fatal,
}

fn severity(error: &DeviceError) -> Severity {
    match error {
        DeviceError::Medium => Severity::Local,
        _ => Severity::Fatal,
    }
}

/// Whether some sector begins with zeros. What is written comes in whole sectors, so that what is missing does too.
fn has_zeros(bytes: &[u8]) -> bool {
    bytes.chunks(512).any(|sector| sector.starts_with(&[0; 8]))
}

impl DeviceHandle {
    pub fn new(id: DeviceId, device: Arc<dyn Device>) -> Self {
        Self {
            id,
            shrinks: device.length().is_some(),
            device,
            failed: OnceLock::new(),
            counters: Counters::default(),
            errors: Mutex::default(),
            doubts: Doubts::default(),
            is_superseded: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// What it leads to, for who begins anew with it under another handle.
    pub fn device(&self) -> Arc<dyn Device> {
        Arc::clone(&self.device)
    }

    pub fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    /// Why the device is out of service; `None` while it serves.
    pub fn failure(&self) -> Option<&str> {
        self.failed.get().map(|failure| failure.why.as_str())
    }

    /// Whether it is out of service because it could not be reached: it may well come back as it was.
    pub fn is_lost(&self) -> bool {
        self.failed.get().is_some_and(|failure| failure.is_lost)
    }

    /// Takes the device out of service; the first reason stays.
    pub fn fail(&self, why: &str) {
        self.close(why, false);
    }

    fn close(&self, why: &str, is_lost: bool) {
        let failure = Failure {
            why: why.to_owned(),
            is_lost,
        };
        if self.failed.set(failure).is_ok() {
            tracing::error!(device = %self.id, why, "storage device taken out of service");
        }
    }

    /// Whether something that this opening of the device was asked may be carried out at any later time.
    pub fn has_timed_out(&self) -> bool {
        self.doubts.timed_out.load(Ordering::Acquire)
    }

    /// Whether the device itself refused a flush (R5): no other opening makes good what it may have lost.
    pub fn could_not_flush(&self) -> bool {
        self.doubts.could_not_flush.load(Ordering::Acquire)
    }

    /// What may come of the same opening of the device, begun with anew, counts on.
    pub fn doubt_as(&self, before: &Self) {
        if before.has_timed_out() && Arc::ptr_eq(&self.device, &before.device) {
            self.doubts.timed_out.store(true, Ordering::Release);
        }
    }

    /// Another handle takes this one's place: through this one the device can be read, and is not changed any more. What
    /// was begun before ends in its own time.
    pub fn supersede(&self) {
        self.is_superseded.store(true, Ordering::SeqCst);
    }

    /// What failed on the device, over all its openings that were [carried on](Self::carry_on).
    pub fn errors(&self) -> ErrorCounts {
        *self.lock_errors()
    }

    /// Adds what failed before the device was opened.
    pub fn carry_on(&self, before: ErrorCounts) {
        *self.lock_errors() += before;
    }

    /// A block was read that does not fit its checksum.
    pub fn note_unfit(&self) {
        self.lock_errors().unfit += 1;
    }

    /// A place that was lost was written anew.
    pub fn note_mended(&self) {
        self.lock_errors().mended += 1;
    }

    fn lock_errors(&self) -> MutexGuard<'_, ErrorCounts> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was asked of the device since it was opened; `None` where nothing was. Of operations that wait for each
    /// other (the copies of a write) each counts until those before it have ended as well.
    pub fn activity(&self) -> Option<Activity> {
        self.counters.sum()
    }

    /// Starts an operation, which runs whether or not it is awaited. Its completion must go through
    /// [`settle`](Self::settle).
    pub fn start(&self, request: Request) -> Io {
        let (kind, bytes) = match &request {
            Request::Read { buf, .. } => (Kind::Read, buf.len() as u64),
            Request::Write { data, .. } => (Kind::Write, data.len() as u64),
            Request::Flush => (Kind::Flush, 0),
            Request::Zero { range, .. } => (Kind::Zero, range.len()),
        };
        let meter = self.counters.meter(kind, bytes);
        if let Some(why) = self.failure() {
            return Io::failed(DeviceError::Latched(why.to_owned()), meter);
        }
        if !matches!(request, Request::Read { .. }) && self.is_superseded.load(Ordering::SeqCst) {
            return Io::failed(DeviceError::Latched("it was begun with anew".into()), meter);
        }
        Io::metered(self.device.submit(request), meter)
    }

    /// Looks at the completion of an operation that was started here, and closes the latch where it must.
    #[inline]
    pub fn settle(&self, io: &Io, mut completion: Completion) -> Completion {
        if self.shrinks && completion.result.is_ok() && self.was_cut_off(io, &completion) {
            completion.result = Err(DeviceError::Short);
        }
        self.counters.end(io.meter(), completion.result.is_ok());
        if let Err(error) = &completion.result {
            self.note_failure(io, error);
        }
        completion
    }

    /// Whether the device lacks what it had when it was opened. Looked at with each flush, and where a read may have met
    /// what is missing.
    fn was_cut_off(&self, io: &Io, completion: &Completion) -> bool {
        let asks = match (&completion.buf, io.meter().asked()) {
            (Some(buf), _) => has_zeros(buf.as_slice()),
            (None, kind) => kind == Kind::Flush,
        };
        let length = || self.device.length();
        asks && length().is_some_and(|length| length < self.info().capacity)
    }

    #[cold]
    fn note_failure(&self, io: &Io, error: &DeviceError) {
        let asked = io.meter().asked();
        self.lock_errors().note(asked, error);
        match error {
            DeviceError::Timeout => self.doubts.timed_out.store(true, Ordering::Release),
            // Of a connection that ended nobody knows: as after a crash.
            DeviceError::Gone(_) | DeviceError::Latched(_) => {}
            _ if asked == Kind::Flush => self.doubts.could_not_flush.store(true, Ordering::Release),
            _ => {}
        }
        if severity(error) == Severity::Fatal && !matches!(error, DeviceError::Latched(_)) {
            let is_lost = matches!(error, DeviceError::Gone(_) | DeviceError::Timeout);
            self.close(&error.to_string(), is_lost);
        }
    }

    /// Runs an operation to its end.
    pub async fn run(&self, request: Request) -> Completion {
        let mut io = self.start(request);
        let completion = (&mut io).await;
        self.settle(&io, completion)
    }

    /// Reads `len` bytes at `at`.
    pub async fn read(&self, at: u64, len: usize) -> Result<IoBuf, DeviceError> {
        let Completion { result, buf } = self
            .run(Request::Read {
                at,
                buf: IoBuf::new(len),
            })
            .await;
        result.map(|()| buf.expect("a read that succeeded returns its buffer"))
    }

    pub async fn write(&self, at: u64, data: BufSlice, fua: bool) -> Result<(), DeviceError> {
        self.run(Request::Write { at, data, fua }).await.result
    }

    pub async fn flush(&self) -> Result<(), DeviceError> {
        self.run(Request::Flush).await.result
    }

    /// Clears what tells whose the device is, durably: afterwards it is blank.
    pub async fn erase(&self) -> Result<(), DeviceError> {
        if let Some(why) = self.failure() {
            return Err(DeviceError::Latched(why.to_owned()));
        }
        signature::erase(&*self.device).await
    }

    pub async fn zero(&self, range: ByteRange, unmap: bool) -> Result<(), DeviceError> {
        self.run(Request::Zero { range, unmap }).await.result
    }
}

impl std::fmt::Debug for DeviceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceHandle")
            .field("id", &self.id)
            .field("failure", &self.failure())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{OpenOptions, file};
    use crate::runtime::DataPlane;

    const LEN: usize = 64 << 10;

    #[test]
    fn a_handle_that_was_superseded_reads_and_changes_nothing() {
        let memory = crate::device::memory::MemoryDevice::new(1 << 20);
        let device = memory.open_as(DeviceId(uuid::Uuid::nil()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let data = |fill| IoBuf::from_slice(&[fill; LEN]).into_slice();
            device.write(0, data(7), false).await.unwrap();
            device.supersede();
            let range = ByteRange::between(0, LEN as u64);
            assert!(device.write(0, data(8), true).await.is_err());
            assert!(device.zero(range, false).await.is_err());
            assert!(device.flush().await.is_err());
            assert_eq!(device.read(0, LEN).await.unwrap().as_slice(), [7; LEN]);
            assert_eq!(device.failure(), None);
        });
    }

    #[test]
    fn a_file_that_was_cut_off_fails_at_the_first_read_of_what_it_lacks_and_at_a_flush() {
        let plane = DataPlane::start(1).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let done = plane.run_on(0, move || async move {
            let folder = tempfile::tempdir().unwrap();
            for reads in [true, false] {
                let path = folder.path().join(format!("device-{reads}"));
                let made = file::create(&path, 1 << 20, &OpenOptions::default()).unwrap();
                let device = DeviceHandle::new(DeviceId(uuid::Uuid::nil()), Arc::new(made));
                let data = || IoBuf::from_slice(&[7; LEN]).into_slice();
                device.write(0, data(), false).await.unwrap();
                device.flush().await.unwrap();
                assert_eq!(device.read(LEN as u64, LEN).await.unwrap().as_slice(), [0; LEN]);
                let by_somebody_else = std::fs::File::options().write(true).open(&path).unwrap();
                by_somebody_else.set_len(0).unwrap();
                // Now it is longer than what is read below, and yet too short.
                device.write(4 * LEN as u64, data(), false).await.unwrap();
                let failed = match reads {
                    true => device.read(0, LEN).await.map(drop),
                    false => device.flush().await,
                };
                assert_eq!(failed, Err(DeviceError::Short));
                assert!(device.failure().is_some() && !device.is_lost());
            }
        });
        runtime.block_on(done).unwrap();
    }
}
