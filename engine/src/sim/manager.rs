//! Those who ask for changes while hosts work: an operator of volumes and members, and bad luck.
//!
//! What a crash cut off is asked for again in the next life, as the same operation ([`again`](super::again)).
//!
//! Invariant: what they do to members the [`atlas`] allows. A volume made here is used by nobody else until it is
//! deleted or the next life begins.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::atlas::{self, Situation};
use super::client::Client;
use super::device::SimDevice;
use super::dice::{Dice, Stream};
use super::ledger::Ledger;
use super::shape::{Shape, VolumeShape};
use super::stage::Stage;
use super::world::{OpenVolume, Verb, World, WorldError};
use crate::export::Target as _;
use crate::types::{OperationId, VolumeId};

/// Verbs that were asked for and not answered, in order.
#[derive(Debug, Default)]
pub struct Operations {
    begun: u64,
    open: Vec<(OperationId, Verb)>,
}

impl Operations {
    fn begin(&mut self, seed: u64, verb: Verb) -> OperationId {
        self.begun += 1;
        let operation = OperationId(Uuid::from_u64_pair(seed, self.begun));
        self.open.push((operation, verb));
        operation
    }

    pub(super) fn end(&mut self, operation: OperationId) {
        self.open.retain(|(open, _)| *open != operation);
    }

    pub(super) fn open(&self) -> Vec<(OperationId, Verb)> {
        self.open.clone()
    }
}

/// What everyone in a life shares.
pub struct Scene<W> {
    pub seed: u64,
    /// Number of the life.
    pub life: u32,
    pub world: Rc<W>,
    pub stage: Arc<Stage>,
    pub disks: Rc<Vec<SimDevice>>,
    pub shape: Rc<Shape>,
    pub ledger: Rc<RefCell<Ledger>>,
    /// Disks that were never used.
    pub blank: Rc<RefCell<Vec<usize>>>,
    /// Disks that the program was given in this life: at its start, or since.
    pub given: Rc<RefCell<BTreeSet<usize>>>,
    pub operations: Rc<RefCell<Operations>>,
    /// Disks that were taken out of service: nothing but their return brings them back.
    pub taken_out: Rc<RefCell<BTreeSet<usize>>>,
}

impl<W> Clone for Scene<W> {
    fn clone(&self) -> Self {
        Self {
            seed: self.seed,
            life: self.life,
            world: self.world.clone(),
            stage: self.stage.clone(),
            disks: self.disks.clone(),
            shape: self.shape.clone(),
            ledger: self.ledger.clone(),
            blank: self.blank.clone(),
            given: self.given.clone(),
            operations: self.operations.clone(),
            taken_out: self.taken_out.clone(),
        }
    }
}

impl<W: World> Scene<W> {
    /// A client number `number` of this life, attached to `volume`.
    pub fn client(&self, volume: &OpenVolume<W::Target>, number: u32) -> Client<W::Target> {
        let entry = self.ledger.borrow().get(volume.id);
        let slices = volume.target.info().capacity / self.shape.slice + 1;
        Client {
            target: volume.target.clone(),
            oracle: entry.oracle,
            dice: Dice::new(self.seed, Stream::Client(self.life, number)),
            stage: self.stage.clone(),
            volume: entry.number,
            hot: u64::from(self.life + entry.number) % slices * self.shape.slice,
        }
    }

    pub(super) async fn situation(&self) -> Situation {
        let holders = self.world.holders().await;
        let levels = self.shape.groups.iter().map(|group| group.level);
        let groups = levels.zip(self.world.groups()).collect();
        Situation { groups, holders }
    }

    async fn manage(&self, verb: Verb) -> Result<Option<VolumeId>, WorldError> {
        let operation = self.operations.borrow_mut().begin(self.seed, verb.clone());
        let answer = self.ask(operation, verb).await;
        self.operations.borrow_mut().end(operation);
        answer
    }

    pub(super) async fn ask(
        &self,
        operation: OperationId,
        verb: Verb,
    ) -> Result<Option<VolumeId>, WorldError> {
        let name = format!("{operation} {verb:?}");
        self.stage.trace(format_args!("{name}"));
        let returned = match &verb {
            Verb::ReturnDisk(disk) => Some(disk.index()),
            _ => None,
        };
        // From now on it may be back; and what took it out meanwhile was before that.
        let forget = || returned.map(|disk| self.taken_out.borrow_mut().remove(&disk));
        forget();
        let answer = self.world.manage(operation, verb).await;
        forget();
        self.stage.trace(format_args!("{name}: {answer:?}"));
        answer
    }

    /// Bad luck: `faults` of them, spread over the life.
    pub async fn hurt(self, faults: u64) {
        let mut dice = Dice::new(self.seed, Stream::Nemesis(self.life));
        for _ in 0..faults {
            tokio::time::sleep(Duration::from_millis(dice.magnitude(9))).await;
            let situation = self.situation().await;
            let Some((disk, fault)) = situation.draw(&self.disks, &mut dice) else {
                continue;
            };
            self.disks[disk].hurt(fault);
            if dice.chance(50) {
                tokio::time::sleep(Duration::from_millis(dice.magnitude(14))).await;
                self.disks[disk].heal();
                self.give_back(disk).await;
            }
        }
    }

    /// Refused where nobody has noticed yet that the disk was gone.
    async fn give_back(&self, disk: usize) {
        self.given.borrow_mut().insert(disk);
        let _ = self.manage(Verb::ReturnDisk(self.disks[disk].clone())).await;
    }

    /// An operator: `verbs` changes, spread over the life.
    pub async fn operate(self, verbs: u64) {
        let mut dice = Dice::new(self.seed, Stream::Manager(self.life));
        let mut own = Vec::new();
        for turn in 0..verbs {
            tokio::time::sleep(Duration::from_millis(dice.magnitude(7))).await;
            match dice.below(10) {
                0..4 => own.extend(self.create(&mut dice, u32::try_from(turn).expect("few")).await),
                4..6 if !own.is_empty() => {
                    let index = dice.index(own.len());
                    self.delete(own.swap_remove(index)).await;
                }
                4..7 => self.expand(&mut dice).await,
                7 => self.format(&mut dice).await,
                _ => self.change_member(&mut dice).await,
            }
        }
    }

    /// Makes a volume and uses it a little.
    async fn create(&self, dice: &mut Dice, turn: u32) -> Option<VolumeId> {
        let groups = self.world.groups();
        let group = dice.index(groups.len());
        if !groups[group].serving {
            return None;
        }
        let capacity = dice.between(1..=512) * 4096;
        let shape = VolumeShape {
            group,
            capacity,
            block: 4096,
        };
        self.ledger.borrow_mut().begin_create(group);
        let id = match self.manage(Verb::CreateVolume(shape)).await {
            Ok(id) => Some(id.expect("a volume that was made has an id")),
            Err(WorldError::Unsupported | WorldError::NoSpace) => None,
            Err(error) => panic!("{shape:?}: {error}"),
        };
        let volumes = self.world.volumes();
        let found = id.map(|id| {
            volumes
                .iter()
                .find(|v| v.id == id)
                .expect("a volume that was made is there")
        });
        let made = found.map(|volume| (volume.id, volume.target.info().capacity));
        self.ledger.borrow_mut().end_create(group, made);
        let mut client = self.client(found?, 1 << 16 | turn);
        client.verify().await;
        client.run(dice.between(1..=10)).await;
        id
    }

    async fn delete(&self, id: VolumeId) {
        self.ledger.borrow_mut().begin_delete(id);
        match self.manage(Verb::DeleteVolume(id)).await {
            Ok(_) => self.ledger.borrow_mut().end_delete(id),
            Err(error) => panic!("{id} is not deleted: {error}"),
        }
    }

    /// Refused where the group fails meanwhile.
    async fn format(&self, dice: &mut Dice) {
        let group = dice.index(self.shape.groups.len());
        let _ = self.manage(Verb::Format(group)).await;
    }

    async fn expand(&self, dice: &mut Dice) {
        let volumes = self.world.volumes();
        if volumes.is_empty() {
            return;
        }
        let volume = &volumes[dice.index(volumes.len())];
        let capacity = volume.target.info().capacity.next_multiple_of(4096) + dice.between(1..=256) * 4096;
        let id = volume.id;
        match self.manage(Verb::ExpandVolume { volume: id, capacity }).await {
            Ok(_) => {
                assert!(volume.target.info().capacity >= capacity, "{id} was not expanded");
                self.ledger.borrow_mut().grown(volume.id, capacity);
            }
            Err(WorldError::Unsupported | WorldError::NoSpace) => {}
            Err(error) => panic!("{id} does not grow to {capacity}: {error}"),
        }
    }

    /// Takes a member out of service, brings a lost one back, or puts a spare in a member's place. A refusal is fine: an
    /// operator does not know all.
    async fn change_member(&self, dice: &mut Dice) {
        let situation = self.situation().await;
        let group = dice.index(situation.groups.len());
        let (level, health) = &situation.groups[group];
        if !self.shape.faults || health.members.is_empty() || situation.is_unnoticed(&self.disks) {
            return;
        }
        let disk = dice.pick(&health.members);
        let lost = !health.in_sync.contains(&disk);
        let may_go = lost || atlas::may_hurt(*level, health, &self.disks, disk);
        let spare = self.blank.borrow().first().copied();
        match spare {
            _ if may_go && dice.chance(40) => self.take_out(disk).await,
            Some(with) if may_go => {
                self.blank.borrow_mut().remove(0);
                let replace = Verb::ReplaceMember { group, disk, with };
                self.without(disk, self.manage(replace)).await;
            }
            _ if lost => self.give_back(disk).await,
            _ => {}
        }
    }

    async fn take_out(&self, disk: usize) {
        if self.without(disk, self.manage(Verb::TakeOutDisk(disk))).await {
            self.taken_out.borrow_mut().insert(disk);
        }
    }

    /// Has the program do without a disk; whether it does.
    pub(super) async fn without<A>(
        &self,
        disk: usize,
        asked: impl Future<Output = Result<A, WorldError>>,
    ) -> bool {
        self.disks[disk].distrust();
        let does = asked.await.is_ok();
        if !does {
            self.disks[disk].noticed();
        }
        does
    }
}
