//! One change of an object at a time: what holds between looking at it and having changed it.
//!
//! Invariant: nobody holds two of them but in the order of their ids.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

/// Locks by object.
#[derive(Debug, Default)]
pub struct Locks {
    held: Mutex<BTreeMap<Uuid, Weak<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    /// Waits until nobody else has the object.
    pub async fn lock(&self, object: Uuid) -> OwnedMutexGuard<()> {
        self.of(object).lock_owned().await
    }

    /// The same, or `None` where `most` wait already.
    pub async fn lock_unless_crowded(&self, object: Uuid, most: usize) -> Option<OwnedMutexGuard<()>> {
        let lock = self.of(object);
        // Whoever has it and whoever waits holds one each, as does this.
        if Arc::strong_count(&lock) >= most.saturating_add(2) {
            return None;
        }
        Some(lock.lock_owned().await)
    }

    fn of(&self, object: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = held.get(&object).and_then(Weak::upgrade) {
            return known;
        }
        held.retain(|_, lock| lock.strong_count() > 0);
        let new = Arc::default();
        held.insert(object, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn an_object_is_one_holders_at_a_time_and_others_are_free() {
        let locks = Locks::default();
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let held = locks.lock(one).now_or_never().unwrap();
        assert!(locks.lock(one).now_or_never().is_none());
        assert!(locks.lock(other).now_or_never().is_some());
        drop(held);
        assert!(locks.lock(one).now_or_never().is_some());
        assert!(locks.held.lock().unwrap().len() <= 2);
    }

    #[test]
    fn only_so_many_wait_where_somebody_says_so() {
        let locks = Locks::default();
        let object = Uuid::new_v4();
        let held = locks.lock_unless_crowded(object, 1).now_or_never().unwrap();
        let mut waits = Box::pin(locks.lock_unless_crowded(object, 1));
        assert!((&mut waits).now_or_never().is_none());
        let refused = locks.lock_unless_crowded(object, 1).now_or_never();
        assert!(refused.unwrap().is_none());
        drop(held);
        assert!(waits.now_or_never().unwrap().is_some());
    }
}
