//! The checksums of one member as far as they are in memory. Synchronous; does no I/O.
//!
//! A page may be known in part: a write says what it knows without reading the page first. Invariants: a value that was
//! noted is never replaced by one that was read; a page that changed, or is being read, is not forgotten; a page is clean
//! only when everything noted in it has been written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::{BLOCK, ENTRIES, Formula, PER_PAGE, Values};
use crate::types::ByteRange;

/// Pages kept per member while they are not changed: checksums of 16 GiB.
pub(super) const KEPT: usize = 4096;
/// Changed pages from which on writes wait until they are written.
const MOST_CHANGED: usize = 4096;
const WORDS: usize = ENTRIES / 64;

/// The number of a page on its member.
pub(super) type PageNumber = u64;

/// Blocks that do not fit their checksums, by member address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::raid) struct Unfit {
    pub(in crate::raid) at: SmallVec<[u64; 2]>,
    /// Those of them that are known to be lost ([`MemberChecks::note_lost`]).
    pub(in crate::raid) lost: SmallVec<[u64; 1]>,
}

/// What a comparison came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Blocks that do not fit.
    Unfit(Unfit),
    /// This page must be read first.
    Unknown(PageNumber),
}

struct Page {
    values: Box<[u32; ENTRIES]>,
    known: [u64; WORDS],
    /// Counts notes; other than `written` while the page is changed.
    noted: u64,
    written: u64,
    /// Who reads it from the device at this time.
    readers: u32,
    /// Asked for since it was last thought of forgetting it.
    used: bool,
}

impl Page {
    fn new() -> Self {
        Self {
            values: Box::new([0; ENTRIES]),
            known: [0; WORDS],
            noted: 0,
            written: 0,
            readers: 0,
            used: true,
        }
    }

    fn knows(&self, index: usize) -> bool {
        self.known[index / 64] & 1 << (index % 64) != 0
    }

    fn set(&mut self, index: usize, value: u32) {
        self.values[index] = value;
        self.known[index / 64] |= 1 << (index % 64);
    }

    fn is_whole(&self) -> bool {
        self.known.iter().all(|&word| word == u64::MAX)
    }

    fn is_changed(&self) -> bool {
        self.noted != self.written
    }
}

#[derive(Default)]
struct Pages {
    pages: BTreeMap<PageNumber, Page>,
    /// Those that are changed.
    changed: BTreeSet<PageNumber>,
    /// Where looking for a page to forget goes on.
    hand: PageNumber,
}

/// A changed page as it is to be written.
pub(super) struct Image {
    pub(super) page: PageNumber,
    pub(super) values: Box<[u32; ENTRIES]>,
    noted: u64,
}

/// What is known of one member's checksums, for as long as one device is that member.
pub(in crate::raid) struct MemberChecks {
    formula: Formula,
    pages: Mutex<Pages>,
    /// How many of the pages are changed, for who need not wait for the lock.
    changed: AtomicUsize,
}

impl std::fmt::Debug for MemberChecks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberChecks").finish_non_exhaustive()
    }
}

fn place(block: u64) -> (PageNumber, usize) {
    let index = usize::try_from(block % PER_PAGE).expect("less than a page has");
    (block / PER_PAGE, index)
}

impl MemberChecks {
    pub(in crate::raid) fn new(formula: Formula) -> Self {
        Self {
            formula,
            pages: Mutex::default(),
            changed: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::raid) fn formula(&self) -> Formula {
        self.formula
    }

    /// This is what stands from member address `at` on from now on.
    pub(in crate::raid) fn note(&self, at: u64, values: &[u32]) {
        let mut pages = self.lock();
        let mut rest = values;
        let mut block = at / BLOCK;
        while !rest.is_empty() {
            let (number, first) = place(block);
            let (here, behind) = rest.split_at(rest.len().min(ENTRIES - first));
            let page = pages.pages.entry(number).or_insert_with(Page::new);
            for (index, &value) in (first..).zip(here) {
                page.set(index, value);
            }
            page.used = true;
            self.change(&mut pages, number);
            rest = behind;
            block += here.len() as u64;
        }
    }

    /// Notes that a page changed.
    fn change(&self, pages: &mut Pages, number: PageNumber) {
        if let Some(page) = pages.pages.get_mut(&number) {
            page.noted += 1;
            pages.changed.insert(number);
            self.changed.store(pages.changed.len(), Ordering::Release);
        }
    }

    /// Nobody can tell what stands there, and zeros are written: they are to read as an error.
    pub(in crate::raid) fn note_lost(&self, range: ByteRange) {
        let mut values = self.formula.of_zeros(range);
        values.iter_mut().for_each(|value| *value = !*value);
        self.note(range.start(), &values);
    }

    /// Compares with what was read from member address `at` on.
    pub(super) fn compare(&self, at: u64, values: &Values) -> Compared {
        let mut unfit = Unfit::default();
        let mut pages = self.lock();
        let mut rest = values.as_slice();
        let mut block = at / BLOCK;
        while !rest.is_empty() {
            let (number, first) = place(block);
            let (here, behind) = rest.split_at(rest.len().min(ENTRIES - first));
            let known = |page: &Page| (first..first + here.len()).all(|index| page.knows(index));
            let Some(page) = pages.pages.get_mut(&number).filter(|page| known(page)) else {
                return Compared::Unknown(number);
            };
            page.used = true;
            for ((block, &stored), &value) in (block..).zip(&page.values[first..]).zip(here) {
                if stored != value {
                    unfit.at.push(block * BLOCK);
                }
                if stored == !value {
                    unfit.lost.push(block * BLOCK);
                }
            }
            rest = behind;
            block += here.len() as u64;
        }
        Compared::Unfit(unfit)
    }

    #[cfg(test)]
    pub(super) fn pages_in_memory(&self) -> usize {
        self.lock().pages.len()
    }

    /// Begins to read a page.
    pub(super) fn begin_reading(&self, page: PageNumber) -> Reading<'_> {
        let mut pages = self.lock();
        pages.pages.entry(page).or_insert_with(Page::new).readers += 1;
        pages.forget_some();
        drop(pages);
        Reading { checks: self, page }
    }

    /// The pages that changed, some of which may be known in part only.
    pub(super) fn changed(&self) -> Vec<PageNumber> {
        self.lock().changed.iter().copied().collect()
    }

    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.changed.load(Ordering::Acquire) >= MOST_CHANGED
    }

    /// Whether a page must be read before it can be written.
    pub(super) fn is_partial(&self, page: PageNumber) -> bool {
        self.lock().pages.get(&page).is_some_and(|page| !page.is_whole())
    }

    /// A page as it is to be written; `None` where it did not change, or is known in part.
    pub(super) fn image(&self, number: PageNumber) -> Option<Image> {
        let pages = self.lock();
        let page = pages.pages.get(&number)?;
        (page.is_changed() && page.is_whole()).then(|| Image {
            page: number,
            values: page.values.clone(),
            noted: page.noted,
        })
    }

    /// The image was written: what was noted since is not.
    pub(super) fn written(&self, image: &Image) {
        let mut pages = self.lock();
        let Some(page) = pages.pages.get_mut(&image.page) else {
            return;
        };
        page.written = page.written.max(image.noted);
        if !page.is_changed() {
            pages.changed.remove(&image.page);
            self.changed.store(pages.changed.len(), Ordering::Release);
        }
        pages.forget_some();
    }
}

impl Pages {
    /// Forgets pages beyond the number kept, those that nobody asked for first.
    fn forget_some(&mut self) {
        let mut looks = 0;
        while self.pages.len() - self.changed.len() > KEPT && looks < 2 * self.pages.len() {
            let from = self.pages.range(self.hand..).next();
            let Some((&number, _)) = from.or_else(|| self.pages.iter().next()) else {
                return;
            };
            self.hand = number + 1;
            looks += 1;
            let page = self.pages.get_mut(&number).expect("just found");
            if std::mem::take(&mut page.used) || page.is_changed() || page.readers > 0 {
                continue;
            }
            self.pages.remove(&number);
        }
    }
}

/// A page that is being read: it stays until this is dropped.
pub(super) struct Reading<'a> {
    checks: &'a MemberChecks,
    page: PageNumber,
}

impl Reading<'_> {
    /// What stands on the device, for what is not known better.
    pub(super) fn merge(&self, values: &[u32]) {
        let mut pages = self.checks.lock();
        let page = pages.pages.get_mut(&self.page).expect("kept while it is read");
        for (index, &value) in values.iter().enumerate() {
            if !page.knows(index) {
                page.set(index, value);
            }
        }
    }

    /// The same, of a page that the device cannot read: it is to be written anew.
    pub(super) fn merge_made_up(&self, values: &[u32]) {
        self.merge(values);
        self.checks.change(&mut self.checks.lock(), self.page);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut pages = self.checks.lock();
        if let Some(page) = pages.pages.get_mut(&self.page) {
            page.readers -= 1;
        }
    }
}
