//! Asking again for what a crash cut off, as the same operation: it must have been done once, or not at all and now, and
//! either way it is answered alike (R10).

use super::atlas;
use super::device::SimDevice;
use super::manager::Scene;
use super::shape::{Level, VolumeShape};
use super::world::{GroupHealth, Verb, World, WorldError};
use crate::types::{OperationId, VolumeId};

impl<W: World> Scene<W> {
    /// Asks again, in order, before hosts work: nobody must use a volume that is to be deleted. What cannot be done for
    /// want of members stays open.
    ///
    /// # Panics
    /// Where something was done twice, or is answered otherwise than before.
    pub async fn ask_again(&self) {
        let open = self.operations.borrow().open();
        for (operation, verb) in open.clone() {
            let over = match verb {
                Verb::CreateVolume(shape) => self.create_again(operation, shape).await,
                Verb::DeleteVolume(id) => self.delete_again(operation, id).await,
                Verb::ExpandVolume { volume, capacity } => {
                    self.expand_again(operation, volume, capacity).await
                }
                Verb::TakeOutDisk(disk) => {
                    let is_returned = |(_, verb): &(OperationId, Verb)| matches!(verb, Verb::ReturnDisk(returned) if returned.index() == disk);
                    if self.take_out_again(operation, disk).await && !open.iter().any(is_returned) {
                        self.taken_out.borrow_mut().insert(disk);
                    }
                    true
                }
                // What is blank already may be made so again; there is nothing that must be finished.
                Verb::Format(_) => true,
                Verb::ReturnDisk(disk) => self.return_again(operation, disk).await,
                Verb::ReplaceMember { group, disk, with } => {
                    self.replace_again(operation, group, disk, with).await
                }
            };
            if over {
                self.operations.borrow_mut().end(operation);
            }
        }
    }

    async fn create_again(&self, operation: OperationId, shape: VolumeShape) -> bool {
        let group = shape.group;
        if !self.world.groups()[group].serving {
            return false;
        }
        let made = match self.ask(operation, Verb::CreateVolume(shape)).await {
            Ok(id) => Some(id.expect("a volume that was made has an id")),
            Err(WorldError::Unsupported | WorldError::NoSpace) => None,
            Err(error) => panic!("{shape:?}: {error}"),
        };
        if made.is_some() {
            let repeated = self.ask(operation, Verb::CreateVolume(shape)).await;
            assert_eq!(repeated.ok(), Some(made), "one operation has one answer");
        }
        let made = made.map(|id| (id, shape.capacity));
        self.ledger.borrow_mut().end_create(group, made);
        true
    }

    async fn delete_again(&self, operation: OperationId, id: VolumeId) -> bool {
        self.ledger.borrow_mut().begin_delete(id);
        match self.ask(operation, Verb::DeleteVolume(id)).await {
            Ok(_) => self.ledger.borrow_mut().end_delete(id),
            Err(WorldError::Waiting(_)) => return false,
            Err(error) => panic!("{id} is not deleted: {error}"),
        }
        true
    }

    async fn expand_again(&self, operation: OperationId, volume: VolumeId, capacity: u64) -> bool {
        match self.ask(operation, Verb::ExpandVolume { volume, capacity }).await {
            Ok(_) => self.ledger.borrow_mut().grown(volume, capacity),
            Err(WorldError::Unsupported | WorldError::NoSpace) => {}
            Err(WorldError::Waiting(_)) => return false,
            Err(error) => panic!("{volume} does not grow to {capacity}: {error}"),
        }
        true
    }

    /// The start has taken the disk itself where it was there: a refusal is fine.
    async fn return_again(&self, operation: OperationId, disk: SimDevice) -> bool {
        let is_given = self.given.borrow().contains(&disk.index());
        if is_given && disk.answers() {
            let _ = self.ask(operation, Verb::ReturnDisk(disk)).await;
        }
        true
    }

    /// Whether it is known to be out now. Asked for again only where the atlas still allows what may not have happened
    /// yet.
    async fn take_out_again(&self, operation: OperationId, disk: usize) -> bool {
        let situation = self.situation().await;
        let is_member = |(_, health): &&(Level, GroupHealth)| health.members.contains(&disk);
        let Some((level, health)) = situation.groups.iter().find(is_member) else {
            return false;
        };
        let is_lost = health.serving && !health.in_sync.contains(&disk);
        let is_allowed = is_lost || atlas::may_hurt(*level, health, &self.disks, disk);
        if !is_allowed || situation.is_unnoticed(&self.disks) {
            return false;
        }
        self.without(disk, self.ask(operation, Verb::TakeOutDisk(disk)))
            .await
    }

    /// Done again only where the atlas still allows what may not have happened yet.
    async fn replace_again(&self, operation: OperationId, group: usize, disk: usize, with: usize) -> bool {
        let situation = self.situation().await;
        let (level, health) = &situation.groups[group];
        let verb = Verb::ReplaceMember { group, disk, with };
        if health.members.contains(&with) {
            let answer = self.ask(operation, verb).await;
            assert!(answer.is_ok(), "done and not answered so: {answer:?}");
            return true;
        }
        let is_lost = health.serving && !health.in_sync.contains(&disk);
        let is_allowed = is_lost || atlas::may_hurt(*level, health, &self.disks, disk);
        let is_there = self.given.borrow().contains(&with) && self.disks[with].answers();
        if is_allowed && is_there && !situation.is_unnoticed(&self.disks) {
            self.without(disk, self.ask(operation, verb)).await;
        }
        true
    }
}
