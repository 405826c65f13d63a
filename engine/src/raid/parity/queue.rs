//! Gathering: writes to a row that is being updated wait, and are one update together.
//!
//! Whoever comes to an idle row updates it, at once. When that is done, the first who waits updates the row with
//! everything that waits. So at most one update of a row runs, and writes that follow each other closely share one
//! computation of its sums, without a timer.
//!
//! Invariant: a row is in the map exactly while somebody updates it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::io::IoError;
use crate::raid::write::Part;

/// Who waits for a row.
struct Waiting {
    part: Part,
    word: oneshot::Sender<Word>,
}

/// What is said to who waits.
pub(super) enum Word {
    /// Somebody else's update carried the write.
    Done(Result<(), IoError>),
    /// To update the row with this and what waits besides.
    Yours(Part),
}

/// The rows that are being updated.
#[derive(Default)]
pub(super) struct Queue(Mutex<BTreeMap<u64, Vec<Waiting>>>);

/// How a write goes on.
pub(super) enum Turn<'a> {
    /// The row is idle: the caller updates it.
    Mine(Updating<'a>, Part),
    /// Somebody will say.
    Wait(oneshot::Receiver<Word>),
}

/// An update of a row. Dropping it lets the next one begin.
pub(super) struct Updating<'a> {
    queue: &'a Queue,
    row: u64,
    others: Vec<oneshot::Sender<Word>>,
}

impl Queue {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, row: u64, part: Part) -> Turn<'_> {
        let mut rows = self.rows();
        if let Some(waiting) = rows.get_mut(&row) {
            let (word, receiver) = oneshot::channel();
            waiting.push(Waiting { part, word });
            return Turn::Wait(receiver);
        }
        rows.insert(row, Vec::new());
        Turn::Mine(self.updating(row), part)
    }

    /// For who was told that the row is its own.
    pub(super) fn updating(&self, row: u64) -> Updating<'_> {
        Updating {
            queue: self,
            row,
            others: Vec::new(),
        }
    }
}

impl Updating<'_> {
    /// The writes that wait for the row: from now on this update carries them.
    pub(super) fn gather(&mut self) -> Vec<Part> {
        let mut rows = self.queue.rows();
        let mut waiting = rows.get_mut(&self.row).map(std::mem::take).unwrap_or_default();
        drop(rows);
        // Whoever went away holds its range no more: somebody else may write there by now.
        waiting.retain(|waiting| !waiting.word.is_closed());
        let (parts, words): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .map(|waiting| (waiting.part, waiting.word))
            .unzip();
        self.others.extend(words);
        parts
    }

    /// Tells everybody whose write it carried.
    pub(super) fn answer(mut self, result: &Result<(), IoError>) {
        for word in self.others.drain(..) {
            // Whoever went away does not need to know.
            let _ = word.send(Word::Done(result.clone()));
        }
    }
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        let mut rows = self.queue.rows();
        while let Some(waiting) = rows.get_mut(&self.row).filter(|waiting| !waiting.is_empty()) {
            let Waiting { part, word } = waiting.remove(0);
            if word.send(Word::Yours(part)).is_ok() {
                return;
            }
        }
        rows.remove(&self.row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::IoBuf;
    use crate::raid::write::Content;
    use crate::types::ByteRange;

    fn part(at: u64) -> Part {
        Part {
            range: ByteRange::between(at, at + 512),
            content: Content::Data(IoBuf::zeroed(512).into_slice()),
        }
    }

    fn waits(turn: Turn<'_>) -> oneshot::Receiver<Word> {
        match turn {
            Turn::Wait(receiver) => receiver,
            Turn::Mine(..) => panic!("the row is being updated"),
        }
    }

    fn mine(turn: Turn<'_>) -> Updating<'_> {
        match turn {
            Turn::Mine(updating, _) => updating,
            Turn::Wait(_) => panic!("the row is idle"),
        }
    }

    #[test]
    fn who_comes_while_a_row_is_updated_is_carried_by_one_update_together() {
        let queue = Queue::default();
        let first = mine(queue.enter(7, part(0)));
        drop(mine(queue.enter(8, part(0))));
        let mut second = waits(queue.enter(7, part(512)));
        let mut third = waits(queue.enter(7, part(1024)));
        drop(first);
        assert!(matches!(second.try_recv(), Ok(Word::Yours(part)) if part.range.start() == 512));
        let mut updating = queue.updating(7);
        let gathered = updating.gather();
        assert_eq!(
            gathered.iter().map(|part| part.range.start()).collect::<Vec<_>>(),
            [1024]
        );
        assert!(third.try_recv().is_err());
        updating.answer(&Err(IoError::Stopping));
        assert!(matches!(third.try_recv(), Ok(Word::Done(Err(IoError::Stopping)))));
        drop(mine(queue.enter(7, part(0))));
    }

    #[test]
    fn who_went_away_does_not_keep_a_row_from_others() {
        let queue = Queue::default();
        let first = mine(queue.enter(7, part(0)));
        drop(waits(queue.enter(7, part(512))));
        let mut third = waits(queue.enter(7, part(1024)));
        drop(first);
        assert!(matches!(third.try_recv(), Ok(Word::Yours(part)) if part.range.start() == 1024));
        drop(queue.updating(7));
        drop(mine(queue.enter(7, part(0))));
    }
}
