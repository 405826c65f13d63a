//! Sparse content of a simulated device.
//!
//! Invariant: every byte has a content from the start, zeros or garbage, as a used disk would.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::ByteRange;

const PAGE: u64 = 4096;
type Bytes = [u8; 4096];

/// What a device holds where nobody has written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    Zeros,
    /// Somebody's old data, made from this number.
    Garbage(u64),
}

#[derive(Debug, Clone)]
enum Page {
    Zeros,
    Data(Arc<Bytes>),
}

/// Cloning shares pages until they are written.
#[derive(Debug, Clone)]
pub struct Image {
    pages: BTreeMap<u64, Page>,
    background: Background,
}

impl Image {
    pub fn new(background: Background) -> Self {
        Self {
            pages: BTreeMap::new(),
            background,
        }
    }

    pub fn read(&self, at: u64, out: &mut [u8]) {
        let range = ByteRange::between(at, at + out.len() as u64);
        let mut rest = out;
        for piece in range.split_at_multiples(PAGE) {
            let (here, tail) = rest.split_at_mut(length(piece));
            let (number, offset) = place(piece);
            match self.pages.get(&number) {
                Some(Page::Data(bytes)) => here.copy_from_slice(&bytes[offset..offset + here.len()]),
                Some(Page::Zeros) => here.fill(0),
                None => match self.background {
                    Background::Zeros => here.fill(0),
                    Background::Garbage(_) => {
                        here.copy_from_slice(&self.blank(number)[offset..offset + here.len()]);
                    }
                },
            }
            rest = tail;
        }
    }

    pub fn write(&mut self, at: u64, data: &[u8]) {
        let range = ByteRange::between(at, at + data.len() as u64);
        let mut rest = data;
        for piece in range.split_at_multiples(PAGE) {
            let (here, tail) = rest.split_at(length(piece));
            self.change(piece, |bytes| bytes.copy_from_slice(here));
            rest = tail;
        }
    }

    pub fn zero(&mut self, range: ByteRange) {
        for piece in range.split_at_multiples(PAGE) {
            if piece.len() == PAGE {
                self.pages.insert(piece.start() / PAGE, Page::Zeros);
            } else {
                self.change(piece, |bytes| bytes.fill(0));
            }
        }
    }

    /// Changes the bytes of a `piece` that lies within one page.
    pub fn change(&mut self, piece: ByteRange, change: impl FnOnce(&mut [u8])) {
        let (number, offset) = place(piece);
        if !matches!(self.pages.get(&number), Some(Page::Data(_))) {
            let zeros = matches!(self.pages.get(&number), Some(Page::Zeros));
            let bytes = if zeros { [0; 4096] } else { self.blank(number) };
            self.pages.insert(number, Page::Data(Arc::new(bytes)));
        }
        let Some(Page::Data(bytes)) = self.pages.get_mut(&number) else {
            unreachable!("made above");
        };
        change(&mut Arc::make_mut(bytes)[offset..offset + length(piece)]);
    }

    /// Address of the first written page from the one at `at` on, going round; `None` where nothing was written.
    pub fn written_page(&self, at: u64) -> Option<u64> {
        let written = |(number, page): (&u64, &Page)| matches!(page, Page::Data(_)).then_some(number * PAGE);
        let mut after = self.pages.range(at / PAGE..);
        after
            .find_map(written)
            .or_else(|| self.pages.iter().find_map(written))
    }

    fn blank(&self, page: u64) -> Bytes {
        let mut bytes = [0; 4096];
        if let Background::Garbage(seed) = self.background {
            let mut state = seed ^ page.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            for word in bytes.chunks_exact_mut(8) {
                state = state
                    .wrapping_mul(0x5851_F42D_4C95_7F2D)
                    .wrapping_add(0x1405_7B7E_F767_814F);
                word.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
            }
        }
        bytes
    }
}

fn place(piece: ByteRange) -> (u64, usize) {
    let offset = usize::try_from(piece.start() % PAGE).expect("below a page");
    (piece.start() / PAGE, offset)
}

fn length(piece: ByteRange) -> usize {
    usize::try_from(piece.len()).expect("at most a page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_rest_is_as_it_was() {
        for background in [Background::Zeros, Background::Garbage(7)] {
            let mut image = Image::new(background);
            let mut before = vec![0; 16384];
            image.read(0, &mut before);
            image.write(3584, &[1; 1024]);
            image.zero(ByteRange::between(7680, 12800));
            let mut after = vec![0; 16384];
            image.read(0, &mut after);
            before[3584..4608].fill(1);
            before[7680..12800].fill(0);
            assert!(before == after);
        }
    }

    #[test]
    fn a_clone_keeps_its_content() {
        let mut image = Image::new(Background::Zeros);
        image.write(0, &[1; 512]);
        let old = image.clone();
        image.write(0, &[2; 512]);
        let mut bytes = [0; 512];
        old.read(0, &mut bytes);
        assert_eq!(bytes, [1; 512]);
    }
}
