//! What the group does while it is open: updates, freeing, members that are dropped and that join.

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt as _;

use super::super::frame::Part;
use super::super::ring::NotBegun;
use super::super::units::{CommitSequence, MemberSet, RING_START};
use super::super::{anchor, frame};
use super::Planted;
use super::device::SECTOR;
use super::model::{Model, NewPart, Op, Task, Then};
use super::rows::{Change, LINES, ROWS, address};

impl Model {
    fn change(&mut self, row: usize) -> Change {
        let start = self.rng.random_range(0..LINES);
        let end = self.rng.random_range(start + 1..=LINES);
        let columns = self.shape.columns();
        let mut chosen = vec![self.rng.random_range(0..columns)];
        chosen.extend((0..columns).filter(|_| self.rng.random_bool(0.2)));
        self.versions += 1;
        Change {
            row,
            lines: row * LINES + start..row * LINES + end,
            columns: chosen,
            version: self.versions,
        }
    }

    pub(super) fn begin(&mut self) {
        let idle: Vec<_> = (0..ROWS).filter(|row| !self.run().busy.contains(row)).collect();
        let rows: Vec<_> = idle.into_iter().filter(|_| self.rng.random_bool(0.6)).collect();
        let copying = self.run().joining.is_some_and(|(_, point)| point.is_none());
        if rows.is_empty() || copying {
            return;
        }
        let mut lines = self.run().lines.clone();
        let written = self.run().written;
        let mut updates = Vec::new();
        for row in rows {
            let change = self.change(row);
            for line in change.lines.clone() {
                for &column in &change.columns {
                    lines[line][column] = change.version;
                }
            }
            let at = address(change.lines.start);
            let part = |member| Some((member, at, self.shape.part(&change, member, &lines)?));
            let parts: Vec<NewPart> = written.iter().filter_map(part).collect();
            updates.push((change, parts));
        }
        let Some((commit, writes)) = self.place(&updates) else {
            return;
        };
        for (change, _) in &updates {
            let run = self.run.as_mut().expect("started");
            run.busy.insert(change.row);
            for line in change.lines.clone() {
                let begun = change
                    .columns
                    .iter()
                    .map(|&column| ((line, column), change.version));
                self.begun.extend(begun);
            }
        }
        self.run().lines = lines;
        if self.is_planted(Planted::InPlaceBeforeDurable) {
            self.write_places(commit, &updates);
        }
        let flushes = writes.iter().map(|op| Op::Flush { member: op.member() });
        let flushes = flushes.collect();
        self.run().tasks.push(Task {
            stages: [writes, flushes].into(),
            then: Then::Durable(commit, updates),
        });
    }

    /// The writes of a commit's frames, where it may begin.
    fn place(&mut self, updates: &[(Change, Vec<NewPart>)]) -> Option<(CommitSequence, Vec<Op>)> {
        let mut by_member: BTreeMap<usize, Vec<Part<'_>>> = BTreeMap::new();
        for (number, (_, parts)) in (0..).zip(updates) {
            let participants = parts.iter().map(|&(member, ..)| member).collect();
            for (member, at, data) in parts {
                by_member.entry(*member).or_default().push(Part {
                    update: number,
                    at: *at,
                    participants,
                    data,
                });
            }
        }
        let frames: Vec<_> = by_member
            .iter()
            .map(|(&member, parts)| (member, parts.as_slice()))
            .collect();
        let count = u32::try_from(updates.len()).unwrap();
        let begun = match self.run().ring.begin(count, &frames) {
            Ok(begun) => begun,
            Err(NotBegun::Running) => return None,
            Err(NotBegun::Full) => {
                self.free();
                return None;
            }
            Err(refused) => panic!("{refused}"),
        };
        let writes = begun.heads.iter().zip(&frames).map(|(head, &(member, parts))| {
            let bytes = frame::encode(&self.area(member), head, parts);
            Op::Write {
                member,
                at: RING_START + head.place.0,
                bytes: bytes.as_slice().to_vec(),
            }
        });
        Some((begun.commit, writes.collect()))
    }

    pub(super) fn durable(&mut self, commit: CommitSequence, updates: &[(Change, Vec<NewPart>)]) {
        for (change, _) in updates {
            for line in change.lines.clone() {
                for &column in &change.columns {
                    self.acknowledged[line][column] = change.version;
                    self.begun.remove(&(line, column));
                }
            }
        }
        self.run().ring.durable(commit);
        if !self.is_planted(Planted::InPlaceBeforeDurable) {
            self.write_places(commit, updates);
        }
    }

    fn write_places(&mut self, commit: CommitSequence, updates: &[(Change, Vec<NewPart>)]) {
        let start = self.data_start();
        let run = self.run.as_mut().expect("started");
        for (change, parts) in updates {
            let there = parts.iter().filter(|&&(member, ..)| run.written.contains(member));
            let writes = there.map(|(member, at, bytes)| Op::Write {
                member: *member,
                at: start + at,
                bytes: bytes.clone(),
            });
            run.tasks.push(Task {
                stages: [writes.collect()].into(),
                then: Then::InPlace(commit, change.row),
            });
        }
    }

    pub(super) fn free(&mut self) {
        let run = self.run();
        let running = run.tasks.iter().any(|task| matches!(task.then, Then::Freed(_)));
        let Some(point) = run.ring.freeable().filter(|_| !running) else {
            return;
        };
        let freeing = run.ring.freeing(point);
        let written = run.written;
        let flush = || {
            written
                .iter()
                .map(|member| Op::Flush { member })
                .collect::<Vec<_>>()
        };
        let mut stages = VecDeque::from([flush(), self.anchor_writes(&freeing), flush()]);
        if self.is_planted(Planted::AnchorsBeforeFlush) {
            stages.pop_front();
        }
        if self.is_planted(Planted::ReuseBeforeAnchors) {
            self.run().ring.freed(&freeing);
        }
        self.run().tasks.push(Task {
            stages,
            then: Then::Freed(freeing),
        });
    }

    pub(super) fn drop_member(&mut self) {
        let member = self.rng.random_range(0..self.shape.members);
        let gone = MemberSet::default().with(member);
        let left = self.in_sync.without(gone);
        if !self.run().written.contains(member) || left.iter().count() < self.shape.columns() {
            return;
        }
        self.in_sync = left;
        let run = self.run();
        run.ring.leave(member);
        run.written = run.written.without(gone);
        run.joining = run.joining.filter(|&(joining, _)| joining != member);
        let copies = |task: &Task| matches!(task.then, Then::Copied(joining, _) if joining == member);
        run.tasks.retain(|task| !copies(task));
        let stages = run.tasks.iter_mut().flat_map(|task| &mut task.stages);
        stages.for_each(|stage| stage.retain(|op| op.member() != member));
    }

    /// Makes a member equal that is out of sync, while nothing is being updated.
    pub(super) fn join(&mut self) {
        let member = self.rng.random_range(0..self.shape.members);
        let slots = self.devices[member].read(0, usize::try_from(RING_START).unwrap());
        let stands = anchor::newest(&self.area(member), &slots).map_or(0, |anchor| anchor.sequence);
        let area = self.area(member);
        let start = self.data_start();
        let shape = self.shape;
        let run = self.run();
        if run.written.contains(member) || run.joining.is_some() || !run.busy.is_empty() {
            return;
        }
        let point = run.ring.latest();
        let fresh = run.ring.join(member, stands);
        run.written = run.written.with(member);
        run.joining = Some((member, None));
        let write = |at, bytes| Op::Write { member, at, bytes };
        let anchor = vec![write(
            fresh.place(),
            anchor::encode(&area, &fresh).as_slice().to_vec(),
        )];
        let copies = run.lines.iter().enumerate().map(|(line, content)| {
            let block = shape.block(line, member, content);
            debug_assert_eq!(block.len(), SECTOR);
            write(start + address(line), block)
        });
        let flush = || vec![Op::Flush { member }];
        run.tasks.push(Task {
            stages: [anchor, flush(), copies.collect(), flush()].into(),
            then: Then::Copied(member, point),
        });
    }

    pub(super) fn copied(&mut self, member: usize, point: CommitSequence) {
        if self.is_planted(Planted::InSyncBeforeFreed) {
            self.run().joining = None;
            self.in_sync = self.in_sync.with(member);
        } else {
            self.run().joining = Some((member, Some(point)));
        }
    }
}
