//! The store in use: applies records, makes them durable on the holders, keeps the holders' list.
//!
//! Invariant: a record is applied to the state in memory only after it is durable on enough holders, so that nobody
//! sees what a crash could take back (R11).

use std::sync::Arc;

use super::State;
use super::area::{Area, AreaError};
use super::elect::{Elected, HolderCopy};
use super::frame::{Commit, History, Named, Tip};
use crate::device::{DeviceError, DeviceHandle};
use crate::io::BufSlice;
use crate::types::{ByteRange, CommitId, DeviceId, IdSource, LogId};

/// How many devices hold the metadata at most, but for one that comes before another goes; an odd number, so that losing
/// two of five is borne.
pub const MAX_HOLDERS: usize = 5;

/// Why metadata could not be read or changed. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error(
        "metadata cannot be made durable: {written} of {named} holders could be written, {needed} are needed"
    )]
    NoQuorum {
        written: usize,
        named: usize,
        needed: usize,
    },
    #[error("a change of the metadata was cut off")]
    CutOff,
    #[error("the metadata was only looked at: its holders were not taken")]
    NotTaken,
    #[error("metadata was written by another program version and cannot be read")]
    Unreadable,
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("no space for the metadata: {0}")]
    Full(AreaError),
}

struct Inner<S> {
    state: S,
    tip: Tip,
    history: History,
    /// Whom the last commit named.
    named: Named,
    live: Vec<Area>,
    /// After a commit whose outcome is not known: nothing more may be built on it.
    broken: Option<StoreError>,
}

/// The metadata of one appliance.
pub struct Store<S> {
    inner: tokio::sync::Mutex<Inner<S>>,
    ids: IdSource,
}

impl<S: State> Store<S> {
    /// Starts the metadata of a new appliance on these devices (at most [`MAX_HOLDERS`] of them are used).
    pub async fn create(
        devices: Vec<(Arc<DeviceHandle>, ByteRange)>,
        ids: IdSource,
    ) -> Result<Self, StoreError> {
        let tip = Tip {
            generation: 1,
            id: CommitId::random(&ids),
        };
        let mut history = History::default();
        history.push(tip);
        let live: Vec<Area> = devices
            .into_iter()
            .take(MAX_HOLDERS)
            .map(|(device, range)| Area::blank(device, range))
            .collect();
        let named = Named {
            holders: live.iter().map(|area| area.device.id()).collect(),
            before: Vec::new(),
        };
        let mut inner = Inner {
            state: S::default(),
            tip,
            history,
            named,
            live,
            broken: None,
        };
        for index in 0..inner.live.len() {
            inner.refresh(&ids, index).await.map_err(StoreError::from_area)?;
        }
        Ok(Self {
            inner: tokio::sync::Mutex::new(inner),
            ids,
        })
    }

    /// Reads the copy that was elected. Nothing can be changed until [`take_holders`](Self::take_holders).
    pub async fn open(copies: &[HolderCopy], elected: &Elected, ids: IdSource) -> Result<Self, StoreError> {
        let chosen = &copies[elected.newest];
        let scanned = chosen.scanned.as_ref().expect("the elected device holds a copy");
        let area = Area::scanned(Arc::clone(&chosen.device), chosen.area, scanned);
        let state = area.load::<S>().await?.ok_or(StoreError::Unreadable)?;
        let live = copies
            .iter()
            .filter(|copy| elected.named.contains(&copy.device.id()))
            .map(|copy| match &copy.scanned {
                Some(scanned) if scanned.tip == elected.tip && scanned.beyond.is_none() => {
                    Area::scanned(Arc::clone(&copy.device), copy.area, scanned)
                }
                Some(other) => Area::outdated(Arc::clone(&copy.device), copy.area, other),
                None => Area::blank(Arc::clone(&copy.device), copy.area),
            })
            .collect();
        let inner = Inner {
            state,
            tip: elected.tip,
            history: scanned.history.clone(),
            named: scanned.named.clone(),
            live,
            broken: Some(StoreError::NotTaken),
        };
        Ok(Self {
            inner: tokio::sync::Mutex::new(inner),
            ids,
        })
    }

    /// Makes the devices that are here the holders: brings each up to date and commits the new list. `forced` is the
    /// user's word that nothing newer exists elsewhere.
    pub async fn take_holders(
        &self,
        devices: Vec<(Arc<DeviceHandle>, ByteRange)>,
        forced: bool,
    ) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        if let Some(unknown @ (StoreError::NoQuorum { .. } | StoreError::CutOff)) = &inner.broken {
            return Err(unknown.clone());
        }
        let mut live = Vec::new();
        for (device, range) in devices {
            // A device that was begun with anew may have lost what it had.
            let known = inner
                .live
                .iter()
                .find(|area| Arc::ptr_eq(&area.device, &device))
                .cloned();
            live.push(match known {
                Some(area) => area,
                None => Area::newcomer(device, range).await,
            });
        }
        inner.live = live;
        // A newcomer gets a whole copy first, still under the old list: it counts only once it has everything.
        let mut index = 0;
        while index < inner.live.len() {
            let ready = match inner.live[index].is_current() {
                true => inner.live[index].settle().await.map_err(AreaError::Device),
                false => inner.refresh(&self.ids, index).await,
            };
            match ready {
                Ok(()) => index += 1,
                Err(AreaError::Device(_)) => drop(inner.live.remove(index)),
                Err(full) => return Err(StoreError::Full(full)),
            }
        }
        if !forced {
            // Half of both lists, as for a commit: the last one may have reached one holder only, and others that it
            // does not name could start without it.
            inner.check_quorum(&inner.named.before)?;
            inner.check_quorum(&inner.named.holders)?;
        }
        if inner.broken == Some(StoreError::NotTaken) {
            inner.broken = None;
        }
        let first = match forced {
            true => {
                inner.named = Named::default();
                inner.live_ids()
            }
            // Under the old list: what a crash leaves of it can then be told from what was acknowledged.
            false => inner.named.holders.clone(),
        };
        inner.commit(&self.ids, Vec::new(), first).await?;
        inner.follow_live(&self.ids).await
    }

    /// Makes the records durable, then applies them. All or none.
    pub async fn commit(&self, records: Vec<S::Record>) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let holders = inner.named.holders.clone();
        inner.commit(&self.ids, records, holders).await?;
        match inner.follow_live(&self.ids).await {
            // The records are durable all the same; the next commit follows.
            Err(StoreError::Full(full)) => {
                tracing::warn!(%full, "metadata holders are not renewed");
                Ok(())
            }
            followed => followed,
        }
    }

    /// Whether the holders were taken. Else the state may hold what too few of them have: the next start may do without
    /// it.
    pub async fn check_taken(&self) -> Result<(), StoreError> {
        match &self.inner.lock().await.broken {
            Some(not_taken @ StoreError::NotTaken) => Err(not_taken.clone()),
            _ => Ok(()),
        }
    }

    /// Whether anything can be changed: not while the holders were not taken, nor after a change of unknown outcome, nor
    /// while too few holders are in service.
    pub async fn check_usable(&self) -> Result<(), StoreError> {
        let inner = self.inner.lock().await;
        inner.check_not_broken()?;
        inner.check_in_service()
    }

    /// Whether exactly these devices hold the metadata, as they are open now.
    pub async fn is_held_by(&self, devices: &[(Arc<DeviceHandle>, ByteRange)]) -> bool {
        let inner = self.inner.lock().await;
        let is_live = |device| inner.live.iter().any(|area| Arc::ptr_eq(&area.device, device));
        let is_named = |device: &DeviceHandle| inner.named.holders.contains(&device.id());
        inner.named.holders.len() == devices.len()
            && devices
                .iter()
                .all(|(device, _)| is_live(device) && is_named(device))
    }

    /// Looks at the state.
    pub async fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.inner.lock().await.state)
    }

    /// Generation of the last commit.
    pub async fn generation(&self) -> u64 {
        self.inner.lock().await.tip.generation
    }

    /// The devices that hold the metadata now.
    pub async fn holders(&self) -> Vec<DeviceId> {
        self.inner.lock().await.named.holders.clone()
    }
}

impl StoreError {
    fn from_area(error: AreaError) -> Self {
        match error {
            AreaError::Device(error) => Self::Device(error),
            full @ AreaError::Full { .. } => Self::Full(full),
        }
    }
}

impl<S: State> Inner<S> {
    fn live_ids(&self) -> Vec<DeviceId> {
        self.live.iter().map(|area| area.device.id()).collect()
    }

    /// Writes the whole state to one holder.
    async fn refresh(&mut self, ids: &IdSource, index: usize) -> Result<(), AreaError> {
        let Self {
            state,
            tip,
            history,
            named,
            live,
            ..
        } = self;
        let log = LogId::random(ids);
        live[index].rewrite(log, state, *tip, named, history).await
    }

    fn check_not_broken(&self) -> Result<(), StoreError> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Whether at least half of `holders` are live.
    fn check_quorum(&self, holders: &[DeviceId]) -> Result<(), StoreError> {
        self.check_quorum_of(holders, |_| true)
    }

    /// Whether a commit can succeed as far as is known.
    fn check_in_service(&self) -> Result<(), StoreError> {
        self.check_quorum_of(&self.named.holders, |area| area.device.failure().is_none())
    }

    fn check_quorum_of(
        &self,
        holders: &[DeviceId],
        counts: impl Fn(&Area) -> bool,
    ) -> Result<(), StoreError> {
        let live: Vec<&Area> = self.live.iter().filter(|area| counts(area)).collect();
        let held = live.iter().filter(|area| holders.contains(&area.device.id()));
        let written = held.count();
        let needed = holders.len().div_ceil(2);
        if written >= needed && !live.is_empty() {
            return Ok(());
        }
        Err(StoreError::NoQuorum {
            written,
            named: holders.len(),
            needed: needed.max(1),
        })
    }

    /// Commits lists until exactly the live holders are named.
    async fn follow_live(&mut self, ids: &IdSource) -> Result<(), StoreError> {
        while let Some(holders) = self.next_holders() {
            self.commit(ids, Vec::new(), holders).await?;
        }
        Ok(())
    }

    /// The next list on the way from the named holders to the live ones. One comes or goes at a time: then any majority
    /// of the old list and any of the new one have a holder in common, whichever of the two a crash leaves valid.
    fn next_holders(&self) -> Option<Vec<DeviceId>> {
        let live = self.live_ids();
        let mut holders = self.named.holders.clone();
        if let Some(new) = live.iter().find(|id| !holders.contains(id)) {
            holders.push(*new);
            return Some(holders);
        }
        let gone = holders.iter().position(|id| !live.contains(id))?;
        holders.remove(gone);
        Some(holders)
    }

    /// One commit that names `holders`: durable on half of them and on half of those named before.
    async fn commit(
        &mut self,
        ids: &IdSource,
        records: Vec<S::Record>,
        holders: Vec<DeviceId>,
    ) -> Result<(), StoreError> {
        self.check_not_broken()?;
        // Nothing is written that is known to be in vain: its outcome would be open for good, although the holders may
        // come back as they were.
        self.check_in_service()?;
        let tip = Tip {
            generation: self.tip.generation + 1,
            id: CommitId::random(ids),
        };
        let named = Named {
            holders,
            before: self.named.holders.clone(),
        };
        let commit = Commit {
            tip,
            parent: self.tip.id,
            named: named.clone(),
        };
        let frames = self.frames(ids, &commit, &records).await?;
        // Stands where this future is dropped before the outcome is known.
        self.broken = Some(StoreError::CutOff);
        let appends = self.live.iter_mut().zip(frames);
        let appends = appends.map(|(area, frame)| area.append(frame));
        let appended = futures_util::future::join_all(appends).await;
        let mut outcome = appended.iter().map(Result::is_ok);
        self.live.retain(|_| outcome.next() == Some(true));
        let durable = self
            .check_quorum(&named.before)
            .and_then(|()| self.check_quorum(&named.holders));
        if let Err(error) = durable {
            self.broken = Some(error.clone());
            return Err(error);
        }
        self.broken = None;
        self.named = named;
        self.tip = tip;
        self.history.push(tip);
        records.into_iter().for_each(|record| self.state.apply(record));
        Ok(())
    }

    /// The commit's frame for each live area. Starts the other half of those that have no room for it.
    async fn frames(
        &mut self,
        ids: &IdSource,
        commit: &Commit,
        records: &[S::Record],
    ) -> Result<Vec<BufSlice>, StoreError> {
        let mut frames = Vec::new();
        while let Some(area) = self.live.get(frames.len()) {
            let frame = area.frame(commit, records);
            if area.fits(&frame) {
                frames.push(frame);
                continue;
            }
            let index = frames.len();
            match self.refresh(ids, index).await {
                Ok(()) => {}
                Err(AreaError::Device(_)) => {
                    self.live.remove(index);
                    continue;
                }
                Err(full) => return Err(StoreError::Full(full)),
            }
            let frame = self.live[index].frame(commit, records);
            if !self.live[index].fits(&frame) {
                let needed = frame.len() as u64;
                return Err(StoreError::Full(AreaError::Full { needed, half: needed }));
            }
            frames.push(frame);
        }
        Ok(frames)
    }
}
