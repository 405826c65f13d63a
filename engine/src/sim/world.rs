//! What the simulation drives: a program that makes volumes out of disks.

use std::future::Future;
use std::sync::Arc;

use super::device::SimDevice;
use super::dice::Dice;
use super::shape::{Shape, VolumeShape};
use crate::export::Target;
use crate::planted::Planted;
use crate::types::{IdSource, OperationId, VolumeId};

/// Why a verb or a start was refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorldError {
    /// Too many disks are missing for a start (R6) or for the group that a verb is about; nothing was changed.
    #[error("waiting for members: {0}")]
    Waiting(String),
    /// This program has no such verb.
    #[error("no such verb here")]
    Unsupported,
    /// The verb was refused for want of space; nothing was changed.
    #[error("no space")]
    NoSpace,
    /// Anything else: a bug, unless the caller asked for nonsense.
    #[error("{0}")]
    Failed(String),
}

/// A volume as a running program offers it.
pub struct OpenVolume<T> {
    pub id: VolumeId,
    /// Index of its group in the shape.
    pub group: usize,
    pub target: Arc<T>,
}

/// How a group is. A member is named in sync only once that is durable (R11).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupHealth {
    /// Its volumes can be read and written.
    pub serving: bool,
    /// A restart would find what is said here; else it may find members in sync that are not named here any more.
    pub settled: bool,
    /// Indexes of the disks that are members.
    pub members: Vec<usize>,
    /// Those of them that hold everything.
    pub in_sync: Vec<usize>,
    /// Those of them that are read or written: in sync, or being copied to.
    pub in_use: Vec<usize>,
}

/// What a manager asks for.
#[derive(Debug, Clone)]
pub enum Verb {
    CreateVolume(VolumeShape),
    DeleteVolume(VolumeId),
    ExpandVolume {
        volume: VolumeId,
        capacity: u64,
    },
    /// Makes the free space of a group blank.
    Format(usize),
    /// Takes a disk out of service until it is returned, over starts too.
    TakeOutDisk(usize),
    /// Takes a disk that failed, was missing or was taken out into service again, and brings it in sync.
    ReturnDisk(SimDevice),
    /// Makes `with`, a disk never used, a member in place of `disk`, and brings it in sync.
    ReplaceMember {
        group: usize,
        disk: usize,
        with: usize,
    },
}

/// The program under test. All of it lives on one thread, in one paused runtime; dropping it, its futures and its
/// tasks at any moment is a crash.
pub trait World: Sized + 'static {
    type Target: Target;

    /// The planted bugs that this program can have.
    const PLANTED: &'static [Planted];

    /// A shape that this program can make.
    fn shape(dice: &mut Dice) -> Shape;

    /// One mirror of `copies` disks, for the orders of absence; `None` where the program has no metadata for it.
    fn mirror(dice: &mut Dice, copies: usize) -> Option<Shape>;

    /// Makes everything in `shape` on fresh disks, durably. `disks` are in the shape's order.
    fn create(
        disks: &[SimDevice],
        ids: IdSource,
        shape: &Shape,
    ) -> impl Future<Output = Result<Self, WorldError>>;

    /// Starts from the disks that are there, in the shape's order, which has so many groups. Groups that cannot
    /// serve do not hinder others.
    ///
    /// # Errors
    /// [`WorldError::Waiting`] where no group can serve for want of disks.
    fn open(
        disks: &[Option<SimDevice>],
        groups: usize,
        ids: IdSource,
    ) -> impl Future<Output = Result<Self, WorldError>>;

    /// The volumes of all groups that serve.
    fn volumes(&self) -> Vec<OpenVolume<Self::Target>>;

    /// In the shape's order.
    fn groups(&self) -> Vec<GroupHealth>;

    /// The disks whose loss the program's metadata would feel (R6).
    fn holders(&self) -> impl Future<Output = Vec<usize>>;

    /// Answers when the verb's effect is durable; where a new volume was made, with its id. An operation that is known
    /// is not done again and gets its first answer (R10).
    fn manage(
        &self,
        operation: OperationId,
        verb: Verb,
    ) -> impl Future<Output = Result<Option<VolumeId>, WorldError>>;

    /// Waits until nothing runs in the background: no resync, no clearing.
    fn settle(&self) -> impl Future<Output = ()>;

    /// Ends the program in order: everything that was acknowledged is durable afterwards.
    fn stop(&self) -> impl Future<Output = ()>;
}
