//! Volumes: making, enlarging, placing more of them, renaming, deleting.

use std::sync::Arc;

use super::devices::lowest_free;
use super::error::VerbError;
use super::groups::slice_range;
use super::records::{GroupSlices, Record, VolumeRecord, VolumeTruth, add_runs};
use super::{Appliance, Working};
use crate::io::IoError;
use crate::map::{Layout, Placement, PlacementRequest, Planned, VolumeMap, placement};
use crate::types::{EmulationType, GroupNumber, VolumeId, VolumeNumber};
use crate::volume::{Shape, Volume};

/// A volume to be made.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// The lowest free number is taken unless one is given.
    pub number: Option<VolumeNumber>,
    pub name: String,
    pub emulation: EmulationType,
    pub capacity: u64,
    pub placements: Vec<Placement>,
    /// Where everything else lies; `None`: a partial volume.
    pub rest: Option<GroupNumber>,
    pub layout: Layout,
    pub exact: bool,
}

/// The answer to a verb that gave a volume space.
#[derive(Debug, Clone)]
pub struct VolumeMade {
    pub number: VolumeNumber,
    /// What was mapped, per placement and in all.
    pub planned: Planned,
}

/// What a volume says of itself.
#[derive(Debug, Clone)]
pub struct VolumeStatus {
    pub record: VolumeRecord,
    /// All its groups serve.
    pub serving: bool,
    pub runs: usize,
}

/// Whether people may call a volume so.
fn check_name(name: &str) -> Result<(), VerbError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && name.len() <= 64 && name.chars().all(good) {
        Ok(())
    } else {
        Err(VerbError::Name(name.to_owned()))
    }
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
    pub async fn create_volume(&self, new: NewVolume) -> Result<VolumeMade, VerbError> {
        let mut working = self.working.lock().await;
        check_name(&new.name)?;
        let number = self.free_volume_number(&new).await?;
        self.check_groups(
            new.emulation,
            new.placements.iter().map(|placed| placed.group).chain(new.rest),
        )?;
        let request = PlacementRequest {
            volume: number,
            emulation: new.emulation,
            capacity_before: 0,
            capacity: new.capacity,
            placements: new.placements,
            rest: new.rest,
            layout: new.layout,
            exact: new.exact,
        };
        let record = VolumeRecord {
            number,
            id: VolumeId::random(&self.ids),
            name: new.name,
            emulation: new.emulation,
            capacity: new.capacity,
            partial: new.rest.is_none(),
        };
        self.give_space(&mut working, record, &VolumeMap::default(), &request)
            .await
    }

    async fn free_volume_number(&self, new: &NewVolume) -> Result<VolumeNumber, VerbError> {
        self.ledger
            .store
            .read(|truth| {
                if truth
                    .volumes
                    .values()
                    .any(|volume| volume.record.name == new.name)
                {
                    return Err(VerbError::NameTaken(new.name.clone()));
                }
                match new.number {
                    Some(number) if truth.volumes.contains_key(&number) => {
                        Err(VerbError::VolumeExists(number))
                    }
                    Some(number) => Ok(number),
                    None => Ok(VolumeNumber(lowest_free(
                        truth.volumes.keys().map(|number| number.0),
                    ))),
                }
            })
            .await
    }

    fn check_groups(
        &self,
        emulation: EmulationType,
        groups: impl Iterator<Item = GroupNumber>,
    ) -> Result<(), VerbError> {
        for number in groups {
            let group = self.serving_group(number)?;
            let (block, group_block) = (emulation.block(), group.block());
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
    async fn give_space(
        &self,
        working: &mut Working,
        record: VolumeRecord,
        map: &VolumeMap,
        request: &PlacementRequest,
    ) -> Result<VolumeMade, VerbError> {
        let planned = placement::plan(request, map, &mut working.allocators)?;
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
        if let Err(error) = self.ledger.store.commit(records).await {
            give_back(working, number, &planned);
            return Err(error.into());
        }
        self.serve_volume(&record, map);
        Ok(VolumeMade { number, planned })
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
        match self.volume(record.number) {
            Some(volume) => volume.grow(shape),
            None => {
                let volume = Volume::new(record.number, record.id, record.emulation, shape);
                self.volumes.borrow_mut().insert(record.number, Arc::new(volume));
            }
        }
    }

    async fn volume_truth(&self, number: VolumeNumber) -> Result<VolumeTruth, VerbError> {
        let known = self
            .ledger
            .store
            .read(|truth| truth.volumes.get(&number).cloned())
            .await;
        known.ok_or(VerbError::NoSuchVolume(number))
    }

    /// Gives a volume more capacity while it is in use: mapped in `rest`, or left unmapped in a partial volume.
    pub async fn expand_volume(
        &self,
        number: VolumeNumber,
        capacity: u64,
        rest: Option<GroupNumber>,
    ) -> Result<VolumeMade, VerbError> {
        self.enlarge(number, capacity, Vec::new(), rest, Layout::Aligned, false)
            .await
    }

    /// Maps more ranges of a partial volume.
    pub async fn place_more(
        &self,
        number: VolumeNumber,
        placements: Vec<Placement>,
        layout: Layout,
        exact: bool,
    ) -> Result<VolumeMade, VerbError> {
        let capacity = self.volume_truth(number).await?.record.capacity;
        self.enlarge(number, capacity, placements, None, layout, exact)
            .await
    }

    async fn enlarge(
        &self,
        number: VolumeNumber,
        capacity: u64,
        placements: Vec<Placement>,
        rest: Option<GroupNumber>,
        layout: Layout,
        exact: bool,
    ) -> Result<VolumeMade, VerbError> {
        let mut working = self.working.lock().await;
        let VolumeTruth { record, runs, .. } = self.volume_truth(number).await?;
        if self.volume(number).is_none() {
            let waits = runs.iter().find(|run| self.group(run.group).is_none());
            return Err(waits.map_or(VerbError::NoSuchVolume(number), |run| {
                VerbError::GroupWaits(run.group)
            }));
        }
        self.check_groups(
            record.emulation,
            placements.iter().map(|placed| placed.group).chain(rest),
        )?;
        let map = VolumeMap::new(runs).expect("a stored map was made by plans");
        let request = PlacementRequest {
            volume: number,
            emulation: record.emulation,
            capacity_before: record.capacity,
            capacity,
            placements,
            rest,
            layout,
            exact,
        };
        self.give_space(&mut working, VolumeRecord { capacity, ..record }, &map, &request)
            .await
    }

    /// Renames a volume.
    pub async fn rename_volume(&self, number: VolumeNumber, name: &str) -> Result<(), VerbError> {
        let _one_verb = self.working.lock().await;
        check_name(name)?;
        let VolumeTruth { record, .. } = self.volume_truth(number).await?;
        let taken = |truth: &super::records::Truth| {
            truth
                .volumes
                .values()
                .any(|volume| volume.record.name == name && volume.record.number != number)
        };
        if self.ledger.store.read(taken).await {
            return Err(VerbError::NameTaken(name.to_owned()));
        }
        Ok(self
            .ledger
            .store
            .commit(vec![Record::Volume(VolumeRecord {
                name: name.to_owned(),
                ..record
            })])
            .await?)
    }

    /// Deletes a volume once its last running request has ended. Its slices are free when their content is gone.
    pub async fn delete_volume(&self, number: VolumeNumber) -> Result<(), VerbError> {
        let mut working = self.working.lock().await;
        let VolumeTruth { record, runs, slices } = self.volume_truth(number).await?;
        let serving = self.volumes.borrow_mut().remove(&number);
        if let Some(volume) = &serving {
            volume.retire().await;
        }
        if let Err(error) = self.ledger.store.commit(vec![Record::RemoveVolume(number)]).await {
            if serving.is_some() {
                self.serve_volume(
                    &record,
                    VolumeMap::new(runs).expect("a stored map was made by plans"),
                );
            }
            return Err(error.into());
        }
        for owned in slices {
            match self.clear_slices(owned).await {
                Ok(true) => {
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
        Ok(())
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

    /// Every volume that the appliance knows.
    pub async fn volume_statuses(&self) -> Vec<VolumeStatus> {
        let known: Vec<(VolumeRecord, usize)> = self
            .ledger
            .store
            .read(|truth| {
                truth
                    .volumes
                    .values()
                    .map(|volume| (volume.record.clone(), volume.runs.len()))
                    .collect()
            })
            .await;
        known
            .into_iter()
            .map(|(record, runs)| VolumeStatus {
                serving: self.volume(record.number).is_some(),
                record,
                runs,
            })
            .collect()
    }
}
