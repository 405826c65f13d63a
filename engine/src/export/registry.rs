//! The exports that are offered at this moment, and who is attached to each.
//!
//! Invariants: an [`Attachment`] exists as long as a connection may have requests running on the export's target. An
//! exclusive export has at most one, and a removed export gets no new ones. Ending an attachment only asks its
//! connection ([`EndSignal`]); the connection finishes what it began and then drops the attachment.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::access::{Refusal, Visitor};
use super::{Export, MAX_NAME};

/// Asks one connection to end. Only that connection's task waits for it.
#[derive(Debug, Default)]
pub struct EndSignal {
    given: AtomicBool,
    waker: AtomicWaker,
}

impl EndSignal {
    /// Asks; more than once is the same as once.
    pub fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready when it was given; else the task is woken when it is.
    pub fn poll_given(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.given.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Resolves when it was given.
    pub async fn given(&self) {
        poll_fn(|context| self.poll_given(context)).await;
    }
}

/// Why an export cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("an export named `{0}` exists already")]
    Exists(String),
    #[error("an export's name has at most {MAX_NAME} bytes")]
    NameTooLong,
}

/// All exports, by name. Shared between the control side and every connection.
#[derive(Debug)]
pub struct Registry<T> {
    offered: Mutex<BTreeMap<String, Arc<Offered<T>>>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            offered: Mutex::new(BTreeMap::new()),
        }
    }
}

impl<T> Registry<T> {
    /// # Errors
    /// Where the name is taken or too long; nothing changed.
    pub fn add(&self, export: Export<T>) -> Result<(), RegistryError> {
        if export.name.len() > MAX_NAME {
            return Err(RegistryError::NameTooLong);
        }
        let mut offered = lock(&self.offered);
        if offered.contains_key(&export.name) {
            return Err(RegistryError::Exists(export.name));
        }
        offered.insert(export.name.clone(), Arc::new(Offered::new(export)));
        Ok(())
    }

    /// Stops offering the export, ends its connections and waits until none has a request running. `false` where
    /// there was none of that name.
    pub async fn remove(&self, name: &str) -> bool {
        let removed = lock(&self.offered).remove(name);
        match removed {
            Some(offered) => {
                offered.withdraw().await;
                true
            }
            None => false,
        }
    }

    /// Connections attached to the export of this name; `None` where none is offered.
    pub fn attached(&self, name: &str) -> Option<usize> {
        lock(&self.offered).get(name).map(|offered| offered.attached())
    }

    /// The export for a visitor who may attach to it.
    ///
    /// # Errors
    /// Why the visitor may not.
    pub fn find(&self, name: &str, visitor: &Visitor) -> Result<Arc<Offered<T>>, Refusal> {
        let offered = lock(&self.offered).get(name).cloned().ok_or(Refusal::Unknown)?;
        offered.export.access.admits(visitor)?;
        Ok(offered)
    }

    /// Names of the exports that the visitor may attach to, in order.
    pub fn names(&self, visitor: &Visitor) -> Vec<String> {
        let admitted = |(name, offered): (&String, &Arc<Offered<T>>)| {
            offered
                .export
                .access
                .admits(visitor)
                .is_ok()
                .then(|| name.clone())
        };
        lock(&self.offered).iter().filter_map(admitted).collect()
    }
}

/// An export and its attachments.
#[derive(Debug)]
pub struct Offered<T> {
    pub export: Export<T>,
    attached: Mutex<Attached>,
    /// Told whenever an attachment ends.
    detached: Notify,
}

#[derive(Debug, Default)]
struct Attached {
    withdrawn: bool,
    next: u64,
    connections: BTreeMap<u64, Arc<EndSignal>>,
}

impl<T> Offered<T> {
    fn new(export: Export<T>) -> Self {
        Self {
            export,
            attached: Mutex::default(),
            detached: Notify::new(),
        }
    }

    /// Attaches a connection. On an exclusive export the present one is ended first, and has no request running when
    /// this resolves.
    ///
    /// # Errors
    /// `Unknown` where the export was removed meanwhile.
    pub async fn attach(self: Arc<Self>, end: Arc<EndSignal>) -> Result<Attachment<T>, Refusal> {
        loop {
            let detached = self.detached.notified();
            if let Some(id) = self.try_attach(&end)? {
                return Ok(Attachment {
                    offered: Arc::clone(&self),
                    id,
                });
            }
            detached.await;
        }
    }

    fn try_attach(&self, end: &Arc<EndSignal>) -> Result<Option<u64>, Refusal> {
        let mut attached = lock(&self.attached);
        if attached.withdrawn {
            return Err(Refusal::Unknown);
        }
        if self.export.exclusive && !attached.connections.is_empty() {
            attached.connections.values().for_each(|other| other.give());
            return Ok(None);
        }
        let id = attached.next;
        attached.next += 1;
        attached.connections.insert(id, Arc::clone(end));
        Ok(Some(id))
    }

    async fn withdraw(&self) {
        loop {
            let detached = self.detached.notified();
            {
                let mut attached = lock(&self.attached);
                attached.withdrawn = true;
                if attached.connections.is_empty() {
                    return;
                }
                attached.connections.values().for_each(|other| other.give());
            }
            detached.await;
        }
    }

    /// Connections attached at this moment.
    pub fn attached(&self) -> usize {
        lock(&self.attached).connections.len()
    }
}

/// One connection's hold on an export; dropped when none of its requests runs any more.
#[derive(Debug)]
pub struct Attachment<T> {
    offered: Arc<Offered<T>>,
    id: u64,
}

impl<T> Attachment<T> {
    pub fn export(&self) -> &Export<T> {
        &self.offered.export
    }
}

impl<T> Drop for Attachment<T> {
    fn drop(&mut self) {
        lock(&self.offered.attached).connections.remove(&self.id);
        self.offered.detached.notify_waiters();
    }
}

fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::access::Protection;
    use futures_util::FutureExt as _;
    use std::pin::pin;

    const ANYBODY: Visitor = Visitor {
        address: None,
        protection: Protection::Plain,
    };

    fn registry(exclusive: bool) -> Registry<()> {
        let registry = Registry::default();
        let export = Export {
            exclusive,
            ..Export::new("vol", Arc::new(()))
        };
        registry.add(export).unwrap();
        registry
    }

    fn attach(
        registry: &Registry<()>,
        end: &Arc<EndSignal>,
    ) -> impl Future<Output = Result<Attachment<()>, Refusal>> {
        registry.find("vol", &ANYBODY).unwrap().attach(Arc::clone(end))
    }

    #[test]
    fn a_name_is_given_once_and_free_again_after_removal() {
        let registry = registry(false);
        let again = || registry.add(Export::new("vol", Arc::new(())));
        assert_eq!(again(), Err(RegistryError::Exists("vol".into())));
        assert_eq!(registry.remove("vol").now_or_never(), Some(true));
        assert_eq!(registry.remove("vol").now_or_never(), Some(false));
        assert_eq!(again(), Ok(()));
    }

    #[test]
    fn a_new_attachment_to_an_exclusive_export_waits_for_the_old_ones_end() {
        let registry = registry(true);
        let (old_end, new_end) = (Arc::default(), Arc::default());
        let old = attach(&registry, &old_end).now_or_never().unwrap().unwrap();
        let mut new = pin!(attach(&registry, &new_end));
        assert!(new.as_mut().now_or_never().is_none());
        assert!(old_end.given().now_or_never().is_some());
        assert!(new_end.given().now_or_never().is_none());
        drop(old);
        assert!(new.now_or_never().unwrap().is_ok());
    }

    #[test]
    fn removal_waits_for_attachments_and_refuses_new_ones() {
        let registry = registry(false);
        let offered = registry.find("vol", &ANYBODY).unwrap();
        let end = Arc::default();
        let held = attach(&registry, &end).now_or_never().unwrap().unwrap();
        let mut removal = pin!(registry.remove("vol"));
        assert!(removal.as_mut().now_or_never().is_none());
        assert!(end.given().now_or_never().is_some());
        let late = offered.attach(Arc::default()).now_or_never().unwrap();
        assert_eq!(late.err(), Some(Refusal::Unknown));
        drop(held);
        assert_eq!(removal.now_or_never(), Some(true));
    }

    #[test]
    fn a_name_beyond_the_protocols_limit_is_refused() {
        let export = Export::new("x".repeat(MAX_NAME + 1), Arc::new(()));
        assert_eq!(Registry::default().add(export), Err(RegistryError::NameTooLong));
    }
}
