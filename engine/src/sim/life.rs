//! One life of the program: from its start to its end, whatever that is.

use std::time::Duration;

use super::atlas;
use super::device::SimDevice;
use super::fault::Fault;
use super::manager::Scene;
use super::stage::Stage;
use super::world::{OpenVolume, World};
use crate::device::slots;
use crate::export::Target;

/// A life that lasts longer hangs.
const LONGEST: Duration = Duration::from_secs(3600);

/// What happens once the program runs.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Read everything before anything else happens.
    pub verify_first: bool,
    /// Clients of each volume.
    pub clients: u32,
    /// Operations of each client.
    pub ops: u64,
    pub faults: u64,
    pub verbs: u64,
    pub verify_last: bool,
    /// Stop in order where no crash came before.
    pub stop: bool,
    /// Wait for all background work, then check that each in-sync member alone can serve.
    pub is_last: bool,
}

/// Fails the operations that are too old, as each data thread does.
pub async fn tick() {
    loop {
        tokio::time::sleep(slots::TICK).await;
        slots::tick();
    }
}

impl<W: World> Scene<W> {
    /// Lives by the plan.
    ///
    /// # Panics
    /// At every broken promise, and where it hangs.
    pub async fn live(&self, plan: &Plan) {
        if tokio::time::timeout(LONGEST, self.work(plan)).await.is_err() {
            panic!("nothing happens any more: {plan:?}");
        }
    }

    async fn work(&self, plan: &Plan) {
        self.ask_again().await;
        if plan.verify_first {
            self.verify(0).await;
        }
        let mut tasks = Vec::new();
        let mut number = 1;
        for volume in self.world.volumes() {
            for _ in 0..plan.clients {
                tasks.push(tokio::task::spawn_local(
                    self.client(&volume, number).run(plan.ops),
                ));
                number += 1;
            }
        }
        tasks.push(tokio::task::spawn_local(self.clone().hurt(plan.faults)));
        tasks.push(tokio::task::spawn_local(self.clone().operate(plan.verbs)));
        for task in tasks {
            task.await.expect("a task that panics ends the process");
        }
        if plan.verify_last {
            self.verify(1 << 17).await;
        }
        if plan.is_last {
            self.world.settle().await;
            if self.shape.faults || self.shape.absences {
                self.leave_one_member_each().await;
                self.verify(1 << 18).await;
            }
        }
        if plan.stop {
            self.stop().await;
        }
    }

    async fn verify(&self, first_client: u32) {
        for (number, volume) in (first_client..).zip(self.world.volumes()) {
            self.client(&volume, number).verify().await;
        }
    }

    /// Takes members away, one after the other, while their groups still have one that is intact.
    async fn leave_one_member_each(&self) {
        for number in 0..self.shape.groups.len() {
            loop {
                self.flush_all().await;
                let situation = self.situation().await;
                let (level, health) = &situation.groups[number];
                let may_go = |disk: &&usize| atlas::may_hurt(*level, health, &self.disks, **disk);
                let choices: Vec<usize> = health.in_sync.iter().filter(may_go).copied().collect();
                if choices.is_empty() || situation.is_unnoticed(&self.disks) {
                    break;
                }
                let chosen = self.stage.dice(|dice| dice.pick(&choices));
                self.disks[chosen].hurt(Fault::Death);
            }
        }
    }

    async fn flush_all(&self) {
        for volume in self.world.volumes() {
            self.client(&volume, 1 << 19).flush().await;
        }
    }

    /// Everything acknowledged is durable once the program has stopped in order.
    async fn stop(&self) {
        let oracles: Vec<_> = self
            .world
            .volumes()
            .iter()
            .map(|v| self.ledger.borrow().get(v.id).oracle)
            .collect();
        let flushes: Vec<_> = oracles
            .iter()
            .map(|oracle| oracle.borrow_mut().begin_flush())
            .collect();
        self.world.stop().await;
        for (oracle, flush) in oracles.iter().zip(flushes) {
            oracle.borrow_mut().end_flush(flush);
        }
    }
}

/// Delivers completions and time-outs for as long as the life lasts.
pub fn spawn_machinery(stage: &std::sync::Arc<Stage>) {
    tokio::task::spawn_local(stage.clone().pump());
    tokio::task::spawn_local(tick());
}

/// Which of `disks` answer.
pub fn answering(disks: &[Option<SimDevice>]) -> Vec<usize> {
    disks
        .iter()
        .flatten()
        .filter(|disk| disk.answers())
        .map(SimDevice::index)
        .collect()
}

/// Where the volumes of a start are, for the trace.
pub fn describe<T: Target>(volumes: &[OpenVolume<T>]) -> String {
    let one = |volume: &OpenVolume<T>| {
        format!(
            "{} g{} {}",
            volume.id,
            volume.group,
            volume.target.info().capacity
        )
    };
    volumes.iter().map(one).collect::<Vec<_>>().join(", ")
}
