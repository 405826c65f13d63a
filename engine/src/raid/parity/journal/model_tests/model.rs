//! The group: what it has on its devices, what it owes its hosts, and what it is doing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::replay::{Again, Undecided, decide};
use super::super::ring::{Freeing, Ring};
use super::super::scan::{Scanned, Scanner};
use super::super::units::{Area, CommitSequence, Incarnation, MemberSet, RING_START, RingLen};
use super::super::{anchor, frame};
use super::Planted;
use super::device::Device;
use super::rows::{Change, LINES, Line, ROWS, Shape, address};
use crate::types::{ByteRange, GroupId, IdSource};

/// Something to do with one device.
pub(super) enum Op {
    Write { member: usize, at: u64, bytes: Vec<u8> },
    Flush { member: usize },
}

impl Op {
    pub(super) fn member(&self) -> usize {
        match *self {
            Self::Write { member, .. } | Self::Flush { member } => member,
        }
    }
}

/// One part of an update: member, member address, bytes.
pub(super) type NewPart = (usize, u64, Vec<u8>);

/// What follows when all of a task is done.
pub(super) enum Then {
    Nothing,
    Opened,
    Durable(CommitSequence, Vec<(Change, Vec<NewPart>)>),
    InPlace(CommitSequence, usize),
    Freed(Freeing),
    Copied(usize, CommitSequence),
}

/// Operations in stages: one begins when the one before is over; within it any order will do.
pub(super) struct Task {
    pub(super) stages: VecDeque<Vec<Op>>,
    pub(super) then: Then,
}

/// What is lost in a crash.
pub(super) struct Run {
    pub(super) ring: Ring,
    pub(super) open: bool,
    /// Members that updates are written to.
    pub(super) written: MemberSet,
    pub(super) lines: Vec<Line>,
    pub(super) busy: BTreeSet<usize>,
    pub(super) tasks: Vec<Task>,
    /// A member that is being made equal, and the point that has to be freed before it is in sync.
    pub(super) joining: Option<(usize, Option<CommitSequence>)>,
}

pub(super) struct Model {
    pub(super) rng: StdRng,
    pub(super) planted: Option<Planted>,
    pub(super) shape: Shape,
    pub(super) group: GroupId,
    pub(super) ring: RingLen,
    pub(super) devices: Vec<Device>,
    pub(super) in_sync: MemberSet,
    pub(super) acknowledged: Vec<Line>,
    /// By line and column: the version that is being written.
    pub(super) begun: BTreeMap<(usize, usize), u64>,
    pub(super) versions: u64,
    pub(super) run: Option<Run>,
}

impl Model {
    pub(super) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let sums = rng.random_range(1..=2);
        let shape = Shape {
            members: rng.random_range(sums + 2..=8),
            sums,
        };
        let ring = RingLen::in_area(RING_START + rng.random_range(4..9) * 4096).unwrap();
        let len = RING_START + ring.bytes() + address(ROWS * LINES);
        let mut model = Self {
            rng,
            planted,
            shape,
            group: GroupId::random(&IdSource::from_seed(seed)),
            ring,
            devices: (0..shape.members)
                .map(|_| Device::new(usize::try_from(len).unwrap()))
                .collect(),
            in_sync: (0..shape.members).collect(),
            acknowledged: vec![vec![0; shape.columns()]; ROWS * LINES],
            begun: BTreeMap::new(),
            versions: 0,
            run: None,
        };
        model.create();
        model
    }

    /// A new group begins with anchors on all members.
    fn create(&mut self) {
        let new = self.in_sync.iter().map(|member| (member, 0));
        let ring = Ring::open(self.ring, Incarnation(1), CommitSequence(0), new);
        for op in self.anchor_writes(&ring.freeing(CommitSequence(0))) {
            self.perform(op);
        }
        self.devices.iter_mut().for_each(Device::flush);
    }

    pub(super) fn area(&self, member: usize) -> Area {
        Area {
            group: self.group,
            member,
            ring: self.ring,
            data: ByteRange::between(0, address(ROWS * LINES)),
        }
    }

    pub(super) fn data_start(&self) -> u64 {
        RING_START + self.ring.bytes()
    }

    pub(super) fn is_planted(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }

    pub(super) fn crash(&mut self) {
        self.run = None;
        for device in &mut self.devices {
            device.crash(&mut self.rng);
        }
    }

    /// Starts, and works on until the next crash.
    pub(super) fn live(&mut self) -> Result<(), String> {
        self.start()?;
        let most = [10, 60, 400][self.rng.random_range(0..3)];
        for _ in 0..self.rng.random_range(0..most) {
            self.step()?;
        }
        Ok(())
    }

    pub(super) fn anchor_writes(&self, freeing: &Freeing) -> Vec<Op> {
        let write = |(member, new): &(usize, anchor::Anchor)| Op::Write {
            member: *member,
            at: new.place(),
            bytes: anchor::encode(&self.area(*member), new).as_slice().to_vec(),
        };
        freeing.anchors.iter().map(write).collect()
    }

    fn scan(&self, member: usize) -> Result<Scanned, String> {
        let area = self.area(member);
        let device = &self.devices[member];
        let anchor = anchor::newest(&area, &device.read(0, usize::try_from(RING_START).unwrap()))
            .ok_or_else(|| format!("member {member} has no anchor"))?;
        let mut scanner = Scanner::new(area, anchor);
        while let Some(wanted) = scanner.wants() {
            scanner.feed(&device.read(RING_START + wanted.at.0, wanted.len));
        }
        Ok(scanner.finish())
    }

    fn start(&mut self) -> Result<(), String> {
        let mut there = self.in_sync;
        while self.rng.random_bool(0.3) {
            let away = there.without(MemberSet::default().with(self.rng.random_range(0..self.shape.members)));
            if away.iter().count() >= self.shape.columns() {
                there = away;
            }
        }
        if !self.is_planted(Planted::AwayStaysInSync) {
            self.in_sync = there;
        }
        let mut scanned = Vec::new();
        for member in 0..self.shape.members {
            let found = there.contains(member).then(|| self.scan(member)).transpose()?;
            scanned.push(found);
        }
        self.spoil(&mut scanned);
        if self.planted.is_none() && self.rng.random_bool(0.3) {
            there = self.lose(there, &mut scanned)?;
        }
        let anchors: Vec<_> = (0..)
            .zip(&scanned)
            .filter_map(|(member, found)| Some((member, found.as_ref()?.anchor.sequence)))
            .collect();
        let decision = decide(scanned).map_err(|undecided| undecided.to_string())?;
        let mut stages = VecDeque::new();
        for again in &decision.again {
            stages.push_back(self.again(again)?);
        }
        let flush = || {
            there
                .iter()
                .map(|member| Op::Flush { member })
                .collect::<Vec<_>>()
        };
        let incarnation = Incarnation(self.rng.random());
        let mut ring = Ring::open(self.ring, incarnation, decision.last, anchors);
        let freeing = ring.freeing(ring.latest());
        ring.freed(&freeing);
        let anchors = [self.anchor_writes(&freeing), flush()];
        stages.push_back(flush());
        let mut tasks = Vec::new();
        if self.is_planted(Planted::ServeBeforeAnchors) {
            tasks.push(Task {
                stages: anchors.into(),
                then: Then::Nothing,
            });
        } else {
            stages.extend(anchors);
        }
        tasks.push(Task {
            stages,
            then: Then::Opened,
        });
        self.run = Some(Run {
            ring,
            open: false,
            written: there,
            lines: Vec::new(),
            busy: BTreeSet::new(),
            tasks,
            joining: None,
        });
        Ok(())
    }

    /// A frame that counts goes bad on a member that can be spared. Where another member has a later commit, that is told
    /// from a commit that was cut off, and the member is dropped.
    fn lose(&mut self, there: MemberSet, scanned: &mut [Option<Scanned>]) -> Result<MemberSet, String> {
        let member = self.rng.random_range(0..self.shape.members);
        let commits = |found: &Option<Scanned>| {
            let frames = found.iter().flat_map(|found| &found.frames);
            frames.map(|frame| frame.head).collect::<Vec<_>>()
        };
        let mut older = commits(&scanned[member]);
        let others = scanned[..member].iter().chain(&scanned[member + 1..]);
        let newest = others.flat_map(commits).map(|head| head.commit).max();
        let first = scanned.iter().flatten().map(|found| found.anchor.first).max();
        older.retain(|head| Some(head.commit) < newest && Some(head.commit) >= first);
        let left = there.without(MemberSet::default().with(member));
        if older.is_empty() || left.iter().count() < self.shape.columns() {
            return Ok(there);
        }
        let place = older[self.rng.random_range(0..older.len())].place;
        self.devices[member].write(RING_START + place.0, &[0xff; 512]);
        scanned[member] = Some(self.scan(member)?);
        match decide(scanned.to_vec()) {
            Err(Undecided::Lost(lost)) if lost == MemberSet::default().with(member) => {
                scanned[member] = None;
                self.in_sync = left;
                Ok(left)
            }
            other => Err(format!("member {member} lost a frame, and that gave {other:?}")),
        }
    }

    /// What bugs in the decision would make of what was found.
    fn spoil(&self, scanned: &mut [Option<Scanned>]) {
        if self.is_planted(Planted::OwnAnchorDecides) {
            own_anchors_decide(scanned);
        }
        if self.is_planted(Planted::PartMissingCounts) {
            for (member, found) in scanned.iter_mut().enumerate() {
                let frames = found.iter_mut().flat_map(|found| &mut found.frames);
                let parts = frames.flat_map(|frame| &mut frame.parts);
                parts.for_each(|part| part.participants = MemberSet::default().with(member));
            }
        }
    }

    fn again(&self, again: &Again) -> Result<Vec<Op>, String> {
        let write = |(member, part): &(usize, frame::StoredPart)| {
            let len = usize::try_from(part.range.len()).unwrap();
            let bytes = self.devices[*member].read(RING_START + part.payload.0, len);
            let at = self.data_start() + part.range.start();
            let member = *member;
            part.is_payload(&bytes)
                .then_some(Op::Write { member, at, bytes })
                .ok_or_else(|| format!("a part of {:?} on {member} has another payload", again.commit))
        };
        again.parts.iter().map(write).collect()
    }

    pub(super) fn run(&mut self) -> &mut Run {
        self.run.as_mut().expect("started")
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.random_range(0..40) {
            _ if !self.run().open => self.advance()?,
            0..8 => self.begin(),
            8 => self.free(),
            9 if self.rng.random_bool(0.3) => self.drop_member(),
            10 => self.join(),
            _ => self.advance()?,
        }
        let run = self.run.as_mut().expect("started");
        if let Some((member, Some(point))) = run.joining
            && run.ring.is_freed(point)
        {
            run.joining = None;
            self.in_sync = self.in_sync.with(member);
        }
        Ok(())
    }

    /// One operation of one task.
    fn advance(&mut self) -> Result<(), String> {
        let run = self.run.as_mut().expect("started");
        if run.tasks.is_empty() {
            return Ok(());
        }
        let number = self.rng.random_range(0..run.tasks.len());
        let task = &mut run.tasks[number];
        while task.stages.pop_front_if(|stage| stage.is_empty()).is_some() {}
        if let Some(stage) = task.stages.front_mut() {
            let op = stage.swap_remove(self.rng.random_range(0..stage.len()));
            self.perform(op);
            return Ok(());
        }
        match run.tasks.swap_remove(number).then {
            Then::Nothing => {}
            Then::Opened => self.opened()?,
            Then::Durable(commit, updates) => self.durable(commit, &updates),
            Then::InPlace(commit, row) => {
                run.ring.in_place(commit);
                run.busy.remove(&row);
            }
            Then::Freed(freeing) => run.ring.freed(&freeing),
            Then::Copied(member, point) => self.copied(member, point),
        }
        Ok(())
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Write { member, at, bytes } => self.devices[member].write(at, &bytes),
            Op::Flush { member } => self.devices[member].flush(),
        }
    }

    /// Everything is read once; from here on hosts rely on what was found.
    fn opened(&mut self) -> Result<(), String> {
        let written = self.run().written;
        self.in_sync = written;
        let mut lines = Vec::new();
        for line in 0..ROWS * LINES {
            let content = self.shape.read(line, self.data_start(), &self.devices, written)?;
            for (column, &version) in content.iter().enumerate() {
                let old = self.acknowledged[line][column];
                let new = self.begun.get(&(line, column));
                if version != old && Some(&version) != new {
                    return Err(format!(
                        "line {line}, column {column}: {version} where {old} was acknowledged"
                    ));
                }
            }
            lines.push(content);
        }
        self.acknowledged.clone_from(&lines);
        self.begun.clear();
        let run = self.run();
        run.lines = lines;
        run.open = true;
        Ok(())
    }
}

/// Has every frame count that is not below its own member's anchor, and takes away what lacks parts then.
fn own_anchors_decide(scanned: &mut [Option<Scanned>]) {
    let anchors = scanned.iter().flatten().map(|found| found.anchor);
    let Some(newest) = anchors.clone().max_by_key(|anchor| anchor.first) else {
        return;
    };
    let ours = |anchor: &anchor::Anchor| anchor.incarnation == newest.incarnation;
    let lowest = anchors.filter(ours).map(|anchor| anchor.first).min();
    let there: MemberSet = (0..scanned.len())
        .filter(|&member| scanned[member].is_some())
        .collect();
    let mut has: BTreeMap<(CommitSequence, u32), MemberSet> = BTreeMap::new();
    for (member, found) in scanned.iter().enumerate() {
        for frame in found.iter().flat_map(|found| &found.frames) {
            for part in &frame.parts {
                let has = has.entry((frame.head.commit, part.update)).or_default();
                *has = has.with(member);
            }
        }
    }
    let ours = scanned.iter_mut().flatten().filter(|found| ours(&found.anchor));
    for found in ours {
        found.anchor.first = lowest.unwrap_or(found.anchor.first);
        for frame in &mut found.frames {
            let commit = frame.head.commit;
            let has = |part: &frame::StoredPart| has[&(commit, part.update)];
            frame
                .parts
                .retain(|part| part.participants.and(there).without(has(part)).is_empty());
        }
    }
}
