//! Volumes: making, enlarging, placing more of them, deleting.

use std::sync::Arc;

use super::devices::free_number;
use super::error::VerbError;
use super::groups::slice_range;
use super::names::check_new;
use super::operation::{VolumeMade, answered};
use super::records::{GroupSlices, Record, Truth, VolumeRecord, VolumeTruth, add_runs};
use super::{Appliance, Working};
use crate::io::IoError;
use crate::map::{Layout, Placement, PlacementRequest, Planned, VolumeMap, placement};
use crate::types::{EmulationType, GroupId, GroupNumber, OperationId, VolumeId, VolumeNumber};
use crate::volume::{Shape, Volume};

/// A volume to be made.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// A random one is taken unless one is given.
    pub id: Option<VolumeId>,
    /// The lowest free number is taken unless one is given.
    pub number: Option<VolumeNumber>,
    pub name: String,
    pub emulation: EmulationType,
    /// Bytes; may be left out where it follows from the type.
    pub capacity: Option<u64>,
    pub placements: Vec<Placement<GroupId>>,
    /// Where everything else lies; `None`: a partial volume.
    pub rest: Option<GroupId>,
    pub layout: Layout,
    pub exact: bool,
}

/// More ranges of a partial volume.
#[derive(Debug, Clone)]
pub struct NewPlacements {
    pub placements: Vec<Placement<GroupId>>,
    pub layout: Layout,
    pub exact: bool,
}

/// A change of a volume's space that was checked, but for the space itself.
pub(super) struct Asked {
    pub(super) record: VolumeRecord,
    pub(super) map: VolumeMap,
    pub(super) request: PlacementRequest,
}

/// Frees what a plan took that came to nothing.
fn give_back(working: &mut Working, volume: VolumeNumber, planned: &Planned) {
    for taken in &planned.taken {
        let allocator = working.allocators.get_mut(taken.group);
        let freed = allocator.map(|allocator| allocator.free(volume, taken.slices));
        freed
            .transpose()
            .expect("slices that a plan took are the volume's");
    }
}

impl Appliance {
    /// Makes a volume. Nothing is allocated where anything is wrong or missing.
    pub async fn create_volume(
        &self,
        operation: OperationId,
        new: &NewVolume,
    ) -> Result<VolumeMade, VerbError> {
        self.once(operation, async || {
            let asked = self.ask_new(new).await?;
            self.give_space(operation, asked).await
        })
        .await
    }

    /// Checks a volume to be made.
    pub(super) async fn ask_new(&self, new: &NewVolume) -> Result<Asked, VerbError> {
        let id = new.id.unwrap_or_else(|| VolumeId::random(&self.ids));
        let looked = self.ledger.store.read(|truth| {
            if truth.volumes.find(id).is_some() {
                return Err(VerbError::IdTaken(id.0));
            }
            check_new(&new.name, truth.volumes.named(&new.name).is_some())?;
            let taken = truth.volumes.keys().map(|number| number.0);
            let number = free_number(new.number.map(|number| number.0), taken)?;
            let smallest = truth.settings.smallest_volume;
            let capacity = new.emulation.new_capacity(new.capacity, smallest)?;
            let request = PlacementRequest {
                volume: VolumeNumber(number),
                emulation: new.emulation,
                capacity_before: 0,
                capacity,
                placements: numbered(truth, &new.placements)?,
                rest: new.rest.map(|group| number_of(truth, group)).transpose()?,
                layout: new.layout,
                exact: new.exact,
            };
            Ok(request)
        });
        let request = looked.await?;
        self.check_groups(&request)?;
        let record = VolumeRecord {
            number: request.volume,
            id,
            name: new.name.clone(),
            emulation: new.emulation,
            capacity: request.capacity,
            partial: new.rest.is_none(),
        };
        Ok(Asked {
            record,
            map: VolumeMap::default(),
            request,
        })
    }

    fn check_groups(&self, request: &PlacementRequest) -> Result<(), VerbError> {
        let block = request.emulation.block();
        let placed = request.placements.iter().map(|placed| placed.group);
        for number in placed.chain(request.rest) {
            let group_block = self.serving_group(number)?.block();
            if !block.is_multiple_of(group_block) {
                return Err(VerbError::Block {
                    block,
                    group: number,
                    group_block,
                });
            }
        }
        Ok(())
    }

    /// Plans, makes durable, serves: what making, placing and expanding have in common.
    async fn give_space(&self, operation: OperationId, asked: Asked) -> Result<VolumeMade, VerbError> {
        let Asked { record, map, request } = asked;
        let planned = placement::plan(&request, &map, &mut self.working.borrow_mut().allocators)?;
        let map = map
            .with_added(&planned.runs)
            .expect("a plan adds only what is not mapped");
        let number = record.number;
        let slices: Vec<GroupSlices> = planned
            .taken
            .iter()
            .map(|taken| GroupSlices {
                group: taken.group,
                slices: taken.slices,
            })
            .collect();
        let mut records = vec![Record::Volume(record.clone())];
        records.extend(add_runs(number, &planned.runs));
        records.push(Record::AddSlices {
            volume: number,
            slices,
        });
        let made = VolumeMade::new(number, record.id, &planned);
        records.push(answered(operation, &made));
        if let Err(error) = self.ledger.store.commit(records).await {
            give_back(&mut self.working.borrow_mut(), number, &planned);
            return Err(error.into());
        }
        self.serve_volume(&record, map);
        Ok(made)
    }

    /// Takes a volume into service, or its larger shape. Not where a group of it waits for members.
    pub(super) fn serve_volume(&self, record: &VolumeRecord, map: VolumeMap) {
        let mut numbers: Vec<GroupNumber> = map.runs().map(|run| run.group).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let groups: Option<Vec<_>> = numbers.iter().map(|number| self.group(*number)).collect();
        let Some(groups) = groups else { return };
        let capacity_of = |number: GroupNumber| {
            let group = groups.iter().find(|group| group.number() == number);
            group.map_or(0, |group| group.capacity())
        };
        if map
            .runs()
            .any(|run| run.group_range().end() > capacity_of(run.group))
        {
            tracing::error!(volume = %record.number, "stored map reaches beyond its groups");
            return;
        }
        let shape = Shape {
            capacity: record.capacity,
            map,
            groups,
        };
        let volume = match self.volume(record.number) {
            Some(volume) => {
                volume.grow(shape);
                volume
            }
            None => {
                let volume = Volume::new(record.number, record.id, record.emulation, shape);
                let volume = Arc::new(volume);
                self.volumes.borrow_mut().insert(Arc::clone(&volume));
                volume
            }
        };
        self.watch.look_at(&volume);
    }

    async fn volume_truth(&self, id: VolumeId) -> Result<VolumeTruth, VerbError> {
        let known = self.ledger.store.read(|truth| truth.volumes.find(id).cloned());
        known.await.ok_or(VerbError::NoSuchVolume(id))
    }

    /// Gives a volume more capacity while it is in use: mapped in `rest`, or left unmapped in a partial volume.
    pub async fn expand_volume(
        &self,
        operation: OperationId,
        id: VolumeId,
        capacity: u64,
        rest: Option<GroupId>,
    ) -> Result<VolumeMade, VerbError> {
        self.once(operation, async || {
            let asked = self.ask_expand(id, capacity, rest).await?;
            self.give_space(operation, asked).await
        })
        .await
    }

    /// Maps more ranges of a partial volume.
    pub async fn place_more(
        &self,
        operation: OperationId,
        id: VolumeId,
        new: &NewPlacements,
    ) -> Result<VolumeMade, VerbError> {
        self.once(operation, async || {
            let asked = self.ask_more(id, new).await?;
            self.give_space(operation, asked).await
        })
        .await
    }

    pub(super) async fn ask_expand(
        &self,
        id: VolumeId,
        capacity: u64,
        rest: Option<GroupId>,
    ) -> Result<Asked, VerbError> {
        let none = NewPlacements {
            placements: Vec::new(),
            layout: Layout::Aligned,
            exact: false,
        };
        self.ask(id, Some(capacity), &none, rest).await
    }

    pub(super) async fn ask_more(&self, id: VolumeId, new: &NewPlacements) -> Result<Asked, VerbError> {
        self.ask(id, None, new, None).await
    }

    /// Checks a change of a volume that exists.
    async fn ask(
        &self,
        id: VolumeId,
        capacity: Option<u64>,
        new: &NewPlacements,
        rest: Option<GroupId>,
    ) -> Result<Asked, VerbError> {
        let VolumeTruth { record, runs, .. } = self.volume_truth(id).await?;
        if self.volume(record.number).is_none() {
            let waits = runs.as_slice().iter().find(|run| self.group(run.group).is_none());
            return Err(waits.map_or(VerbError::VolumeUnsound(record.number), |run| {
                VerbError::VolumeWaits {
                    volume: record.number,
                    group: run.group,
                }
            }));
        }
        let groups = self.ledger.store.read(|truth| {
            let rest = rest.map(|group| number_of(truth, group)).transpose()?;
            Ok::<_, VerbError>((numbered(truth, &new.placements)?, rest))
        });
        let (placements, rest) = groups.await?;
        let capacity = capacity.unwrap_or(record.capacity);
        let request = PlacementRequest {
            volume: record.number,
            emulation: record.emulation,
            capacity_before: record.capacity,
            capacity,
            placements,
            rest,
            layout: new.layout,
            exact: new.exact,
        };
        self.check_groups(&request)?;
        Ok(Asked {
            record: VolumeRecord { capacity, ..record },
            map: VolumeMap::new(runs.into_vec()).expect("a stored map was made by plans"),
            request,
        })
    }

    /// Deletes a volume that is not exported, once its last running request has ended. Its slices are free when their
    /// content is gone.
    pub async fn delete_volume(&self, operation: OperationId, id: VolumeId) -> Result<(), VerbError> {
        self.once(operation, async || {
            let VolumeTruth { record, runs, slices } = self.volume_truth(id).await?;
            let number = record.number;
            self.check_not_exported(&record).await?;
            let serving = self.volumes.borrow_mut().remove(number);
            if let Some(volume) = &serving {
                volume.retire().await;
            }
            let records = vec![Record::RemoveVolume(number), answered(operation, &())];
            if let Err(error) = self.ledger.store.commit(records).await {
                if serving.is_some() {
                    let map = VolumeMap::new(runs.into_vec()).expect("a stored map was made by plans");
                    self.serve_volume(&record, map);
                }
                return Err(error.into());
            }
            self.watch.forget_volume(id);
            self.free_slices(number, slices).await;
            Ok(())
        })
        .await
    }

    async fn check_not_exported(&self, record: &VolumeRecord) -> Result<(), VerbError> {
        let exports = self.ledger.store.read(|truth| {
            let users = truth.exports_of(record.id);
            users.map(|export| export.name.clone()).collect::<Vec<_>>()
        });
        let exports = exports.await;
        if exports.is_empty() {
            return Ok(());
        }
        Err(VerbError::VolumeExported {
            volume: record.number,
            exports,
        })
    }

    /// Clears and frees what a volume had that is gone.
    async fn free_slices(&self, number: VolumeNumber, slices: Vec<GroupSlices>) {
        for owned in slices {
            match self.clear_slices(owned).await {
                Ok(true) => {
                    let mut working = self.working.borrow_mut();
                    let allocator = working.allocators.get_mut(owned.group);
                    let freed = allocator.map(|allocator| allocator.free(number, owned.slices));
                    if let Some(Err(error)) = freed {
                        tracing::warn!(volume = %number, %error, "stored slices contradict each other");
                    }
                }
                // They stay out of use until a start clears them.
                Ok(false) => {}
                Err(error) => tracing::warn!(volume = %number, %error, "freed space could not be cleared"),
            }
        }
    }

    /// Makes slices *never written* again, durably, and says so. Where their group does not serve, that is done when it
    /// does (`false`): until then they are nobody's.
    pub(super) async fn clear_slices(&self, owned: GroupSlices) -> Result<bool, VerbError> {
        let Some(group) = self.group(owned.group) else {
            return Ok(false);
        };
        let (range, capacity) = (slice_range(group.slice(), owned.slices), group.capacity());
        if range.end() > capacity {
            return Err(IoError::OutOfBounds { range, capacity }.into());
        }
        group.zero(range, true, false).await?;
        self.ledger.store.commit(vec![Record::Cleared(owned)]).await?;
        Ok(true)
    }
}

/// The number of a group that a request names.
fn number_of(truth: &Truth, group: GroupId) -> Result<GroupNumber, VerbError> {
    let known = truth.groups.find(group).map(|group| group.number);
    known.ok_or(VerbError::NoSuchGroup(group))
}

fn numbered(truth: &Truth, placements: &[Placement<GroupId>]) -> Result<Vec<Placement>, VerbError> {
    let one = |placed: &Placement<GroupId>| {
        Ok(Placement {
            range: placed.range,
            group: number_of(truth, placed.group)?,
        })
    };
    placements.iter().map(one).collect()
}
