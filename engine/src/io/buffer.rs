//! Owned buffers, aligned to 4096 bytes so that a direct device can use them, kept for reuse per thread.
//!
//! Invariants: an [`IoBuf`] is the only handle to its memory; a [`SharedBuf`] is never written. Memory goes back to
//! the free list of the thread that drops the last handle. Free lists are kept by size class, small and large apart.

use std::cell::RefCell;
use std::sync::Arc;

/// Alignment and granularity of buffers.
pub const PAGE: usize = 4096;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

type Pages = Arc<Box<[Page]>>;

/// Size classes: 4 KiB, 16 KiB, 64 KiB, 256 KiB, 1 MiB. Larger buffers are not kept.
const CLASSES: [usize; 5] = [1, 4, 16, 64, 256];
/// How many bytes a thread keeps in each class.
const KEPT_BYTES_PER_CLASS: usize = 16 << 20;

thread_local! {
    static FREE: RefCell<[Vec<Pages>; CLASSES.len()]> = const { RefCell::new([const { Vec::new() }; CLASSES.len()]) };
}

fn class_of(pages: usize) -> Option<usize> {
    CLASSES.iter().position(|&size| pages <= size)
}

fn take(pages: usize) -> Pages {
    let Some(class) = class_of(pages) else {
        return Arc::new(bytemuck::allocation::zeroed_slice_box(pages));
    };
    FREE.with_borrow_mut(|free| free[class].pop())
        .unwrap_or_else(|| Arc::new(bytemuck::allocation::zeroed_slice_box(CLASSES[class])))
}

fn give_back(pages: Pages) {
    if Arc::strong_count(&pages) != 1 {
        return;
    }
    let Some(class) = CLASSES.iter().position(|&size| pages.len() == size) else {
        return;
    };
    // The list is gone while a thread ends; the memory is then simply freed.
    let _ = FREE.try_with(|free| {
        let list = &mut free.borrow_mut()[class];
        if list.len() * CLASSES[class] * PAGE < KEPT_BYTES_PER_CLASS {
            list.push(pages);
        }
    });
}

/// A buffer that one owner fills. Its first content is arbitrary old data: whoever hands it on fills all of it.
pub struct IoBuf {
    pages: Option<Pages>,
    len: usize,
}

impl IoBuf {
    /// `len` bytes of arbitrary content.
    pub fn new(len: usize) -> Self {
        Self {
            pages: Some(take(len.div_ceil(PAGE).max(1))),
            len,
        }
    }

    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::new(len);
        buf.as_mut_slice().fill(0);
        buf
    }

    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut buf = Self::new(bytes.len());
        buf.as_mut_slice().copy_from_slice(bytes);
        buf
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn as_slice(&self) -> &[u8] {
        let pages = self.pages.as_ref().expect("present until dropped");
        &bytemuck::cast_slice(pages)[..self.len]
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let pages = self.pages.as_mut().expect("present until dropped");
        let pages = Arc::get_mut(pages).expect("an IoBuf is the only handle to its memory");
        &mut bytemuck::cast_slice_mut(pages)[..self.len]
    }

    /// Gives up writing, so that several readers may hold it.
    pub fn share(mut self) -> SharedBuf {
        SharedBuf {
            pages: self.pages.take(),
            len: self.len,
        }
    }

    /// The whole buffer as a slice that can be handed on.
    pub fn into_slice(self) -> BufSlice {
        let len = self.len;
        BufSlice {
            buf: self.share(),
            start: 0,
            len,
        }
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            give_back(pages);
        }
    }
}

impl std::fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len)
    }
}

/// A filled buffer with any number of readers.
#[derive(Clone)]
pub struct SharedBuf {
    pages: Option<Pages>,
    len: usize,
}

impl SharedBuf {
    fn as_slice(&self) -> &[u8] {
        let pages = self.pages.as_ref().expect("present until dropped");
        &bytemuck::cast_slice(pages)[..self.len]
    }
}

impl Drop for SharedBuf {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            give_back(pages);
        }
    }
}

/// A part of a shared buffer. Cloning and cutting copy no bytes.
#[derive(Clone)]
pub struct BufSlice {
    buf: SharedBuf,
    start: usize,
    len: usize,
}

impl BufSlice {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.buf.as_slice()[self.start..self.start + self.len]
    }

    /// `len` bytes from `offset` within this slice.
    ///
    /// # Panics
    /// Where they are not within it.
    pub fn cut(&self, offset: usize, len: usize) -> Self {
        assert!(offset + len <= self.len, "cut {offset}+{len} of {}", self.len);
        Self {
            buf: self.buf.clone(),
            start: self.start + offset,
            len,
        }
    }
}

impl std::fmt::Debug for BufSlice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BufSlice({}+{})", self.start, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_page_aligned_and_reused() {
        let first = IoBuf::new(4096);
        let address = first.as_slice().as_ptr() as usize;
        assert_eq!(address % PAGE, 0);
        drop(first);
        assert_eq!(IoBuf::new(100).as_slice().as_ptr() as usize, address);
    }

    #[test]
    fn memory_is_reused_only_after_the_last_reader() {
        let slice = IoBuf::from_slice(b"abcd").into_slice();
        let tail = slice.cut(2, 2);
        drop(slice);
        let other = IoBuf::from_slice(b"xyzw");
        assert_eq!(tail.as_slice(), b"cd");
        drop(other);
    }
}
