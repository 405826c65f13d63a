//! A whole run: one seed, several lives, the same disks.
//!
//! Each life has a runtime of its own that the crash drops with everything in it. What outlives it is the disks, the
//! ledger, and what is known of the groups: which disks may be needed at the next start.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::{Either, select};

use super::atlas;
use super::device::SimDevice;
use super::dice::{Dice, Stream};
use super::ledger::Ledger;
use super::life::{self, Plan};
use super::manager::{Operations, Scene};
use super::medium::CrashKind;
use super::shape::Shape;
use super::stage::Stage;
use super::world::{Verb, World, WorldError};
use crate::device::slots;
use crate::types::IdSource;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub seed: u64,
    /// Print the trace.
    pub trace: bool,
    pub absences: Option<Absences>,
}

/// One order in which the members of a mirror are missing over a few restarts; at each start one member at least is
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absences {
    pub copies: u32,
    /// Below [`Absences::orders`].
    pub order: u32,
}

/// Starts with members missing, before one with all of them.
const ABSENT_STARTS: u32 = 3;

impl Absences {
    /// How many orders there are.
    pub fn orders(copies: u32) -> u32 {
        ((1 << copies) - 1_u32).pow(ABSENT_STARTS)
    }

    /// Whether member `disk` is there at start number `start`, from 1.
    fn present(self, start: u32, disk: usize) -> bool {
        let sets = (1 << self.copies) - 1_u32;
        let set = 1 + self.order / sets.pow(start - 1) % sets;
        set >> disk & 1 == 1
    }
}

/// How a run went, where it went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub trace_hash: u64,
    pub trace_lines: u64,
    pub lives: u32,
}

/// How a life begins and ends.
struct Fate {
    present: Vec<Option<SimDevice>>,
    /// Device events from its start to its crash.
    crash_after: Option<u64>,
    kind: CrashKind,
    plan: Plan,
}

struct Run<W> {
    options: Options,
    stage: Arc<Stage>,
    shape: Rc<Shape>,
    disks: Rc<Vec<SimDevice>>,
    blank: Rc<RefCell<Vec<usize>>>,
    given: Rc<RefCell<BTreeSet<usize>>>,
    ledger: Rc<RefCell<Ledger>>,
    operations: Rc<RefCell<Operations>>,
    taken_out: Rc<RefCell<BTreeSet<usize>>>,
    /// By group: its members, as last heard.
    members: Vec<Vec<usize>>,
    /// By group: the disks that may be in sync. With all of them a start must succeed.
    needed: Vec<BTreeSet<usize>>,
    /// What answered at the end of the last life in which a group served.
    last_present: BTreeSet<usize>,
    /// The program, while it runs.
    world: Rc<RefCell<Option<Rc<W>>>>,
}

/// Runs one seed to its end. Once per process: a run does not leave the process as it found it.
///
/// # Panics
/// At every broken promise.
pub fn run<W: World>(options: Options) -> Summary {
    let stage = Stage::new(options.seed, options.trace);
    let mut run = Run::<W>::new(options, stage);
    let lives = match options.absences {
        Some(_) => ABSENT_STARTS + 2,
        None => u32::try_from(Dice::new(options.seed, Stream::Life(0)).between(3..=6)).expect("few"),
    };
    for number in 0..lives {
        run.life(number, number + 1 == lives);
    }
    let (trace_hash, trace_lines) = run.stage.fingerprint();
    Summary {
        trace_hash,
        trace_lines,
        lives,
    }
}

impl<W: World> Run<W> {
    fn new(options: Options, stage: Arc<Stage>) -> Self {
        let mut dice = Dice::new(options.seed, Stream::Shape);
        let shape = match options.absences {
            None => W::shape(&mut dice),
            Some(absences) => {
                let copies = usize::try_from(absences.copies).expect("few");
                W::mirror(&mut dice, copies).expect("this program knows absent members")
            }
        };
        stage.trace(format_args!("seed {} {shape:?}", options.seed));
        let make = |(index, disk): (usize, &_)| SimDevice::new(index, *disk, stage.clone());
        let disks: Vec<SimDevice> = shape.disks.iter().enumerate().map(make).collect();
        let used: BTreeSet<usize> = shape
            .groups
            .iter()
            .flat_map(|group| group.members.clone())
            .collect();
        let blank = (0..disks.len()).filter(|disk| !used.contains(disk)).collect();
        Self {
            options,
            stage,
            members: shape.groups.iter().map(|group| group.members.clone()).collect(),
            needed: shape
                .groups
                .iter()
                .map(|group| group.members.iter().copied().collect())
                .collect(),
            last_present: (0..disks.len()).collect(),
            shape: Rc::new(shape),
            disks: Rc::new(disks),
            blank: Rc::new(RefCell::new(blank)),
            given: Rc::default(),
            ledger: Rc::default(),
            operations: Rc::default(),
            taken_out: Rc::default(),
            world: Rc::default(),
        }
    }

    fn life(&mut self, number: u32, is_last: bool) {
        let fate = self.fate(number, is_last);
        let present = life::answering(&fate.present);
        self.stage
            .trace(format_args!("life {number} with {present:?}, {:?}", fate.plan));
        *self.given.borrow_mut() = present.iter().copied().collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let runtime = runtime.expect("a runtime without I/O needs nothing that can be missing");
        let tasks = tokio::task::LocalSet::new();
        let crashed = runtime.block_on(tasks.run_until(async {
            self.stage.begin_life();
            life::spawn_machinery(&self.stage);
            let crash = pin!(self.stage.crashed());
            let life = pin!(self.start_and_live(number, &fate, &present));
            matches!(select(crash, life).await, Either::Left(_))
        }));
        self.stage.crash();
        self.stage.trace(format_args!(
            "life {number} ends, crashed={crashed}, {:?}",
            fate.kind
        ));
        self.check_taken_out();
        self.note_needed();
        drop(self.world.take());
        drop(tasks);
        drop(runtime);
        slots::reset();
        for disk in self.disks.iter() {
            disk.crash(fate.kind);
        }
        self.ledger.borrow().crash(fate.kind);
    }

    async fn start_and_live(&self, number: u32, fate: &Fate, present: &[usize]) {
        let ids = IdSource::from_seed(Dice::new(self.options.seed, Stream::Ids(number)).number());
        let started = if number == 0 {
            let world = W::create(&self.disks, ids, &self.shape).await;
            self.arm(fate);
            Ok(world.unwrap_or_else(|error| panic!("cannot be made: {error}")))
        } else {
            self.arm(fate);
            self.open(fate, ids).await
        };
        let world = match started {
            Ok(world) => Rc::new(world),
            Err(WorldError::Waiting(why)) => return self.expect_waiting(&why, present),
            Err(error) => panic!("does not start: {error}"),
        };
        *self.world.borrow_mut() = Some(world.clone());
        self.take_stock(number, &world, present);
        let scene = Scene {
            seed: self.options.seed,
            life: number,
            world,
            stage: self.stage.clone(),
            disks: self.disks.clone(),
            shape: self.shape.clone(),
            ledger: self.ledger.clone(),
            blank: self.blank.clone(),
            given: self.given.clone(),
            operations: self.operations.clone(),
            taken_out: self.taken_out.clone(),
        };
        scene.live(&fate.plan).await;
    }

    async fn open(&self, fate: &Fate, ids: IdSource) -> Result<W, WorldError> {
        if fate.present.iter().all(Option::is_none) {
            return Err(WorldError::Waiting("no disk is there".into()));
        }
        W::open(&fate.present, self.shape.groups.len(), ids).await
    }

    fn arm(&self, fate: &Fate) {
        if let Some(events) = fate.crash_after {
            self.stage.arm(events);
        }
    }

    /// Whether group number `group` must serve: all that may be in sync is there, and everything that answered when
    /// the program last ran, so that its metadata must be too. A disk with bad sectors may not know itself any more.
    fn must_serve(&self, group: usize, present: &[usize]) -> bool {
        let there = |disk: &usize| present.contains(disk) && self.disks[*disk].is_readable();
        self.needed[group].iter().all(there) && self.last_present.iter().all(there)
    }

    /// No group serves.
    fn expect_waiting(&self, why: &str, present: &[usize]) {
        self.stage.trace(format_args!("waiting: {why}"));
        for group in 0..self.needed.len() {
            assert!(
                !self.must_serve(group, present),
                "group {group} waits: {why}; {:?}",
                self.needed
            );
        }
    }

    fn take_stock(&self, number: u32, world: &W, present: &[usize]) {
        let volumes = world.volumes();
        let groups = world.groups();
        self.stage
            .trace(format_args!("serving {groups:?}: {}", life::describe(&volumes)));
        if number == 0 {
            self.ledger.borrow_mut().adopt(&volumes);
            assert_eq!(
                volumes.len(),
                self.shape.volumes.len(),
                "every volume of the shape is made"
            );
        }
        for (group, health) in groups.iter().enumerate() {
            let well = health.serving || !self.must_serve(group, present);
            assert!(well, "group {group} does not serve: {:?}", self.needed);
        }
        let serving: Vec<bool> = groups.iter().map(|group| group.serving).collect();
        self.ledger.borrow_mut().reconcile(&volumes, &serving);
    }

    /// Nothing but its return brings a disk back that was taken out of service.
    fn check_taken_out(&self) {
        let open = self.operations.borrow().open();
        let is_coming = |disk: usize| {
            let returns = |verb: &Verb| matches!(verb, Verb::ReturnDisk(other) if other.index() == disk);
            open.iter().any(|(_, verb)| returns(verb))
        };
        let mut taken_out = self.taken_out.borrow_mut();
        taken_out.retain(|disk| !is_coming(*disk));
        let groups = self.world.borrow().as_ref().map(|world| world.groups());
        for (number, health) in groups.iter().flatten().enumerate() {
            let back = health.in_use.iter().find(|disk| taken_out.contains(disk));
            assert!(
                back.is_none(),
                "group {number} uses disk {back:?}, which was taken out: {health:?}"
            );
        }
    }

    /// What may be in sync after this life: what was said to be, and what may have become so since.
    fn note_needed(&mut self) {
        let groups = self.world.borrow().as_ref().map(|world| world.groups());
        for (members, health) in self.members.iter_mut().zip(groups.iter().flatten()) {
            if health.serving {
                members.clone_from(&health.members);
            }
        }
        let mut alive = self.given.borrow().clone();
        alive.retain(|disk| self.disks[*disk].answers());
        // A start that only waits changes nothing, and one that was cut off may have changed anything.
        let served = groups.iter().flatten().any(|health| health.serving);
        if served {
            self.last_present.clone_from(&alive);
        } else {
            self.last_present.extend(&alive);
        }
        let known = |disk: &usize| self.members.iter().any(|members| members.contains(disk));
        let loose = |disk: &usize| !known(disk) && !self.blank.borrow().contains(disk);
        for (group, needed) in self.needed.iter_mut().enumerate() {
            match groups.as_ref().map(|groups| &groups[group]) {
                Some(health) if !health.serving => continue,
                Some(health) if health.settled => *needed = health.in_sync.iter().copied().collect(),
                Some(health) => needed.extend(&health.in_sync),
                None => {}
            }
            needed.extend(
                alive
                    .iter()
                    .filter(|disk| self.members[group].contains(disk) || loose(disk)),
            );
        }
    }

    fn fate(&self, number: u32, is_last: bool) -> Fate {
        let mut dice = Dice::new(self.options.seed, Stream::Life(number + 1));
        let kind = dice.pick(&[CrashKind::PowerLoss, CrashKind::PowerLoss, CrashKind::Killed]);
        for disk in self.disks.iter() {
            if !disk.answers() && (is_last || dice.chance(60)) {
                disk.heal();
            }
        }
        let everyone = self.disks.iter().map(|disk| Some(disk.clone()));
        let mut present: Vec<Option<SimDevice>> = everyone.collect();
        if !is_last && number > 0 {
            self.take_away(number, &mut present, &mut dice);
        }
        let plan = Plan {
            verify_first: dice.chance(40) || is_last,
            clients: u32::try_from(dice.between(1..=3)).expect("few"),
            ops: dice.between(3..=25),
            faults: if self.shape.faults && !is_last {
                dice.below(4)
            } else {
                0
            },
            verbs: if self.options.absences.is_none() {
                dice.below(6)
            } else {
                0
            },
            verify_last: dice.chance(30) || is_last,
            stop: dice.chance(30),
            is_last,
        };
        let crash_after = (!is_last && dice.chance(80)).then(|| dice.magnitude(11));
        Fate {
            present,
            crash_after,
            kind,
            plan,
        }
    }

    fn take_away(&self, number: u32, present: &mut [Option<SimDevice>], dice: &mut Dice) {
        if let Some(absences) = self.options.absences {
            for (disk, slot) in present.iter_mut().enumerate() {
                if !absences.present(number, disk) {
                    *slot = None;
                }
            }
        } else if self.shape.absences && dice.chance(40) {
            let all: Vec<usize> = self.needed.iter().flatten().copied().collect();
            for (disk, slot) in present.iter_mut().enumerate() {
                let group = self.needed.iter().find(|needed| needed.contains(&disk));
                let needed = group.map_or(all.clone(), |group| group.iter().copied().collect());
                if dice.chance(35) && atlas::may_be_absent(&needed, &self.disks, disk) {
                    *slot = None;
                }
            }
        }
    }
}
