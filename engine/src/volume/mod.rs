//! The logical volume: what a host sees, over whatever groups its ranges lie on.
//!
//! A request is bounded, checked, ordered (writes that overlap exclude each other by bytes, a read waits for the writes
//! before it), shown to the hooks, cut at the map's edges and sent down. The order among requests is kept in
//! [`crate::io::range_lock`], which is also the moment gate.
//!
//! Invariants: nothing of a request that is refused has happened; an address that is not mapped never returns data; no
//! request is running on a volume after [`Volume::retire`] has returned.

mod activity;
pub mod hook;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::io::IoError;
use crate::io::range_lock::{self, Moment, RangeLock};
use crate::map::VolumeMap;
use crate::raid::Group;
use crate::statistics::{Activity, Counters};
use crate::types::{EmulationType, GroupNumber, VolumeId, VolumeNumber};
use activity::RunningRequests;
use hook::Hook;

/// Where a volume's addresses lie, at one moment. Never changed: a change makes a new one.
pub struct Shape {
    /// Bytes.
    pub capacity: u64,
    pub map: VolumeMap,
    /// The groups that the map names.
    pub groups: Vec<Arc<Group>>,
}

impl Shape {
    /// The group with this number.
    ///
    /// # Panics
    /// Where the map names a group that the shape lacks: they are made together.
    fn group(&self, number: GroupNumber) -> &Group {
        self.groups
            .iter()
            .find(|group| group.number() == number)
            .expect("a shape holds the groups that its map names")
    }
}

/// A volume in service.
pub struct Volume {
    id: VolumeId,
    number: VolumeNumber,
    emulation: EmulationType,
    shape: ArcSwap<Shape>,
    order: RangeLock,
    hooks: ArcSwapOption<Vec<Arc<dyn Hook>>>,
    running: RunningRequests,
    counters: Counters,
    losses: AtomicU64,
}

impl Volume {
    pub fn new(number: VolumeNumber, id: VolumeId, emulation: EmulationType, shape: Shape) -> Self {
        Self {
            id,
            number,
            emulation,
            shape: ArcSwap::from_pointee(shape),
            order: RangeLock::new(),
            hooks: ArcSwapOption::const_empty(),
            running: RunningRequests::default(),
            counters: Counters::default(),
            losses: AtomicU64::new(0),
        }
    }

    pub fn id(&self) -> VolumeId {
        self.id
    }

    pub fn number(&self) -> VolumeNumber {
        self.number
    }

    pub fn emulation(&self) -> EmulationType {
        self.emulation
    }

    /// The shape that requests use that begin now.
    pub fn shape(&self) -> Arc<Shape> {
        self.shape.load_full()
    }

    /// Takes a larger shape into use: more capacity, or more of it mapped. What was mapped stays where it was.
    pub fn grow(&self, shape: Shape) {
        self.shape.store(Arc::new(shape));
    }

    /// Has requests that begin now use a group that was opened anew, in the place of the one that it was. `may_lack`: of
    /// what was acknowledged and not flushed.
    pub fn use_reopened(&self, group: &Arc<Group>, may_lack: bool) {
        let before = self.shape.load_full();
        if !before.groups.iter().any(|known| known.number() == group.number()) {
            return;
        }
        let groups = before.groups.iter().map(|known| match known {
            known if known.number() == group.number() => Arc::clone(group),
            other => Arc::clone(other),
        });
        if may_lack {
            // Before anything can be flushed.
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
        self.shape.store(Arc::new(Shape {
            capacity: before.capacity,
            map: before.map.clone(),
            groups: groups.collect(),
        }));
    }

    /// Sets what watches this volume's writes.
    pub fn watch(&self, hooks: Vec<Arc<dyn Hook>>) {
        self.hooks.store((!hooks.is_empty()).then(|| Arc::new(hooks)));
    }

    /// What hosts asked of the volume; `None` where it was nothing.
    pub fn activity(&self) -> Option<Activity> {
        self.counters.sum()
    }

    /// Refuses further requests and resolves when the last running one has ended.
    pub async fn retire(&self) {
        self.running.retire().await;
    }
}

/// Divides the writes of these volumes into before and after one moment (R14), which waits for nothing. Volumes come in
/// the order of their numbers (R15).
///
/// # Panics
/// Where they do not: two such calls could wait for each other for ever.
pub fn moment(volumes: &[Arc<Volume>]) -> Vec<Moment> {
    assert!(
        volumes.is_sorted_by(|a, b| a.number < b.number),
        "gates are taken in the order of volume numbers"
    );
    let locks: Vec<&RangeLock> = volumes.iter().map(|volume| &volume.order).collect();
    range_lock::flip(&locks)
}

fn stopping() -> IoError {
    IoError::Stopping
}
