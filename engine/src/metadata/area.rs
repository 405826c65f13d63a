//! One holder's metadata area: two halves, each a snapshot followed by the commits since.
//!
//! Invariants: the half in use is never overwritten; a new snapshot goes to the other half and counts only once its end
//! frame is durable. Then the former half is made void: it may be of another line of descent, and further on in it.
//! Every snapshot begins a log with an id of its own, which its commits carry. They are appended one by one, each durable
//! before the next: behind the last one no other of the same log stands. So one that does shows that the log is
//! *damaged* before it, and a commit that a crash tore is no damage. Nothing is appended to a damaged log.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::State;
use super::frame::{self, Commit, FRAME_UNIT, Head, History, KIND, Named, Tip};
use crate::device::{DeviceError, DeviceHandle};
use crate::io::{BufSlice, IoBuf};
use crate::types::sealed::{self, HEADER_LEN};
use crate::types::{ByteRange, LogId};

use std::sync::Arc;

/// Records of one snapshot part: keeps frames near 100 KiB.
const RECORDS_PER_PART: usize = 512;
/// How much is read ahead when the log is scanned, and how far a lost commit can hide what stands behind it.
const READ_AHEAD: u64 = 1 << 20;

/// Why an area could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AreaError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the metadata area of {half} bytes is too small for a snapshot of {needed} bytes")]
    Full { needed: u64, half: u64 },
}

/// What was found on a holder.
#[derive(Debug, Clone)]
pub(super) struct Scanned {
    pub(super) tip: Tip,
    pub(super) named: Named,
    pub(super) history: History,
    /// The newest commit found behind damage of the log.
    pub(super) beyond: Option<Beyond>,
    log: LogId,
    half: u64,
    /// Where the next frame goes, from the half's start.
    end: u64,
}

/// A commit that cannot be reached: some between it and the copy's tip are damaged.
#[derive(Debug, Clone)]
pub(super) struct Beyond {
    pub(super) tip: Tip,
    pub(super) named: Named,
}

impl Scanned {
    /// How far the copy once went; of two equal ones the undamaged is better.
    fn reach(&self) -> (u64, bool) {
        let furthest = self.beyond.as_ref().map_or(self.tip, |beyond| beyond.tip);
        (furthest.generation, self.beyond.is_none())
    }
}

/// A holder's area, with the place where the next commit goes.
#[derive(Debug, Clone)]
pub(super) struct Area {
    pub(super) device: Arc<DeviceHandle>,
    range: ByteRange,
    /// The log that commits are appended to; none where no snapshot of ours stands yet.
    log: LogId,
    half: u64,
    end: u64,
}

/// Reads frames in order from one half. What the medium cannot give reads as damage.
struct Reader<'a> {
    device: &'a DeviceHandle,
    half: ByteRange,
    at: u64,
    ahead: Option<(u64, BufSlice)>,
    /// Up to here nothing is read ahead: a bad place is near, and every read of it may take seconds.
    careful: u64,
}

impl<'a> Reader<'a> {
    fn new(device: &'a DeviceHandle, half: ByteRange) -> Self {
        Self {
            device,
            half,
            at: 0,
            ahead: None,
            careful: 0,
        }
    }

    /// `None` behind the half's end, and where the medium cannot read.
    async fn bytes(&mut self, at: u64, len: u64) -> Result<Option<BufSlice>, DeviceError> {
        if at + len > self.half.len() {
            return Ok(None);
        }
        if let Some((start, ahead)) = &self.ahead
            && *start <= at
            && at + len <= start + ahead.len() as u64
        {
            return Ok(Some(ahead.cut(usize_of(at - start), usize_of(len))));
        }
        let ahead = if at < self.careful { 0 } else { READ_AHEAD };
        let amount = len.max(ahead).min(self.half.len() - at);
        let start = self.half.start() + at;
        let read = match self.device.read(start, usize_of(amount)).await {
            Err(DeviceError::Medium) if amount == len => return Ok(None),
            // What lies ahead may be of no use to anybody.
            Err(DeviceError::Medium) => {
                self.careful = at + amount;
                match self.device.read(start, usize_of(len)).await {
                    Err(DeviceError::Medium) => return Ok(None),
                    read => read?,
                }
            }
            read => read?,
        };
        let read = read.into_slice();
        let cut = read.cut(0, usize_of(len));
        self.ahead = Some((at, read));
        Ok(Some(cut))
    }

    /// The next valid frame's body; `None` where none stands.
    async fn next(&mut self) -> Result<Option<BufSlice>, DeviceError> {
        let Some(first) = self.bytes(self.at, FRAME_UNIT).await? else {
            return Ok(None);
        };
        let Ok(body) = sealed::body_len(KIND, first.as_slice()) else {
            return Ok(None);
        };
        let len = ((HEADER_LEN + body) as u64).next_multiple_of(FRAME_UNIT);
        let Some(frame) = self.bytes(self.at, len).await? else {
            return Ok(None);
        };
        if sealed::open_body(KIND, frame.as_slice()).is_err() {
            return Ok(None);
        }
        self.at += len;
        Ok(Some(frame.cut(HEADER_LEN, body)))
    }

    /// Looks for commits of `log` behind a place where none of it stands, and gives the newest.
    async fn beyond(&mut self, log: LogId, tip: Tip) -> Result<Option<Beyond>, DeviceError> {
        let mut newest: Option<Beyond> = None;
        let mut looked = 0;
        while looked < READ_AHEAD && self.at < self.half.len() {
            let at = self.at;
            let body = self.next().await?;
            let known = newest.as_ref().map_or(tip, |newest| newest.tip);
            match body.and_then(|body| commit_of(log, body.as_slice())) {
                Some(Commit { tip, named, .. }) if tip.generation > known.generation => {
                    newest = Some(Beyond { tip, named });
                    looked = 0;
                }
                // A frame of another log says nothing of where the next one of this log begins.
                _ => {
                    self.at = at + FRAME_UNIT;
                    looked += FRAME_UNIT;
                }
            }
        }
        Ok(newest)
    }
}

/// The commit in a frame's body, where it is one of `log`.
fn commit_of(log: LogId, body: &[u8]) -> Option<Commit> {
    match frame::decode_head(body)? {
        (Head::Commit { log: of, commit }, _) if of == log => Some(commit),
        _ => None,
    }
}

fn usize_of(len: u64) -> usize {
    usize::try_from(len).expect("lengths within a metadata area fit memory")
}

fn half_of(range: ByteRange, half: u64) -> ByteRange {
    let len = range.len() / 2 / FRAME_UNIT * FRAME_UNIT;
    let start = range.start() + half * len;
    ByteRange::between(start, start + len)
}

/// Goes through one half; calls `records` with every frame's undecoded records, in order. `None` where no valid
/// snapshot stands there.
async fn walk(
    device: &DeviceHandle,
    range: ByteRange,
    half: u64,
    mut records: impl FnMut(&[u8]),
) -> Result<Option<Scanned>, DeviceError> {
    let mut reader = Reader::new(device, half_of(range, half));
    let Some(body) = reader.next().await? else {
        return Ok(None);
    };
    let Some((
        Head::SnapshotStart {
            log,
            tip: start,
            named,
            history,
        },
        rest,
    )) = frame::decode_head(body.as_slice())
    else {
        return Ok(None);
    };
    records(rest);
    let mut scanned = Scanned {
        tip: start,
        named,
        history,
        beyond: None,
        log,
        half,
        end: 0,
    };
    let mut seen = 0;
    loop {
        let Some(body) = reader.next().await? else {
            return Ok(None);
        };
        match frame::decode_head(body.as_slice()) {
            Some((Head::SnapshotPart { tip, number }, rest)) if tip == start && number == seen => {
                seen += 1;
                records(rest);
            }
            Some((Head::SnapshotEnd { tip, parts }, _)) if tip == start && parts == seen => break,
            _ => return Ok(None),
        }
    }
    scanned.end = reader.at;
    while let Some(body) = reader.next().await? {
        match frame::decode_head(body.as_slice()) {
            Some((Head::Commit { log: of, commit }, rest)) if of == log && commit.follows(scanned.tip) => {
                records(rest);
                scanned.tip = commit.tip;
                scanned.named = commit.named;
                scanned.history.push(commit.tip);
                scanned.end = reader.at;
            }
            _ => break,
        }
    }
    reader.at = scanned.end;
    scanned.beyond = reader.beyond(log, scanned.tip).await?;
    Ok(Some(scanned))
}

/// Finds the newest copy on a device; `None` where none stands.
pub(super) async fn scan(device: &DeviceHandle, range: ByteRange) -> Result<Option<Scanned>, DeviceError> {
    let mut newest: Option<Scanned> = None;
    for half in [0, 1] {
        if let Some(found) = walk(device, range, half, |_| ()).await?
            && newest.as_ref().is_none_or(|known| known.reach() < found.reach())
        {
            newest = Some(found);
        }
    }
    Ok(newest)
}

impl Area {
    /// An area that holds nothing: its next write is a snapshot to its first half.
    pub(super) fn blank(device: Arc<DeviceHandle>, range: ByteRange) -> Self {
        Self::full(device, range, 1)
    }

    /// An area that holds another copy than the one that counts: its next write is a snapshot beside that copy, which
    /// stays until the snapshot is durable.
    pub(super) fn outdated(device: Arc<DeviceHandle>, range: ByteRange, scanned: &Scanned) -> Self {
        Self::full(device, range, scanned.half)
    }

    /// The area of a device that was no holder lately: it may have a copy from when it was.
    pub(super) async fn newcomer(device: Arc<DeviceHandle>, range: ByteRange) -> Self {
        match scan(&device, range).await {
            Ok(Some(scanned)) => Self::outdated(device, range, &scanned),
            Ok(None) | Err(_) => Self::blank(device, range),
        }
    }

    fn full(device: Arc<DeviceHandle>, range: ByteRange, half: u64) -> Self {
        let end = half_of(range, half).len();
        Self {
            device,
            range,
            log: LogId(uuid::Uuid::nil()),
            half,
            end,
        }
    }

    /// Whether the area holds the state that it was opened for; a blank or outdated one does not.
    pub(super) fn is_current(&self) -> bool {
        self.end < half_of(self.range, self.half).len()
    }

    /// The area after a scan.
    pub(super) fn scanned(device: Arc<DeviceHandle>, range: ByteRange, scanned: &Scanned) -> Self {
        Self {
            device,
            range,
            log: scanned.log,
            half: scanned.half,
            end: scanned.end,
        }
    }

    /// Decodes the state that a scan found. `None` where a record cannot be decoded: written by another program.
    pub(super) async fn load<S: State>(&self) -> Result<Option<S>, DeviceError>
    where
        S::Record: DeserializeOwned,
    {
        let mut state = S::default();
        let mut whole = true;
        walk(
            &self.device,
            self.range,
            self.half,
            |bytes| match frame::decode_records::<S::Record>(bytes) {
                Some(records) => records.into_iter().for_each(|record| state.apply(record)),
                None => whole = false,
            },
        )
        .await?;
        Ok(whole.then_some(state))
    }

    /// The frame of a commit that is to be appended here.
    pub(super) fn frame<R: Serialize>(&self, commit: &Commit, records: &[R]) -> BufSlice {
        let head = Head::Commit {
            log: self.log,
            commit: commit.clone(),
        };
        frame::encode(&head, records)
    }

    /// Whether a frame still fits the half in use.
    pub(super) fn fits(&self, frame: &BufSlice) -> bool {
        self.end + frame.len() as u64 <= half_of(self.range, self.half).len()
    }

    /// Makes durable what a scan found: its last commit may stand in a cache only, where the program ended before it
    /// was durable. Behind it the next one could outlive it.
    pub(super) async fn settle(&self) -> Result<(), DeviceError> {
        self.device.flush().await
    }

    /// Appends a frame; durable when it returns. An area where that failed is not appended to again before another
    /// scan, and then at the same place: of a frame that stood there in part no unit but the first could begin one.
    pub(super) async fn append(&mut self, frame: BufSlice) -> Result<(), DeviceError> {
        let len = frame.len() as u64;
        let at = half_of(self.range, self.half).start() + self.end;
        self.device.write(at, frame, true).await?;
        self.end += len;
        Ok(())
    }

    /// Writes the whole state to the other half and goes on there, in a new log; durable when it returns.
    pub(super) async fn rewrite<S: State>(
        &mut self,
        log: LogId,
        state: &S,
        tip: Tip,
        named: &Named,
        history: &History,
    ) -> Result<(), AreaError> {
        let half = 1 - self.half;
        let target = half_of(self.range, half);
        let mut end = 0;
        let start = Head::SnapshotStart {
            log,
            tip,
            named: named.clone(),
            history: history.clone(),
        };
        end = self.put::<S::Record>(target, end, &start, &[]).await?;
        let mut parts = 0;
        let mut records = state.snapshot().peekable();
        while records.peek().is_some() {
            let part: Vec<S::Record> = records.by_ref().take(RECORDS_PER_PART).collect();
            end = self
                .put(target, end, &Head::SnapshotPart { tip, number: parts }, &part)
                .await?;
            parts += 1;
        }
        self.device.flush().await?;
        end = self
            .put::<S::Record>(target, end, &Head::SnapshotEnd { tip, parts }, &[])
            .await?;
        self.device.flush().await?;
        let former = half_of(self.range, self.half).start();
        let nothing = IoBuf::zeroed(usize_of(FRAME_UNIT)).into_slice();
        // First: nothing may be appended to what is being voided, whatever becomes of this.
        (self.log, self.half, self.end) = (log, half, end);
        self.device.write(former, nothing, true).await?;
        Ok(())
    }

    async fn put<R: Serialize>(
        &self,
        half: ByteRange,
        end: u64,
        head: &Head,
        records: &[R],
    ) -> Result<u64, AreaError> {
        let frame = frame::encode(head, records);
        let next = end + frame.len() as u64;
        if next > half.len() {
            return Err(AreaError::Full {
                needed: next,
                half: half.len(),
            });
        }
        self.device.write(half.start() + end, frame, false).await?;
        Ok(next)
    }
}
