//! Every way to compute against the definition of the sums, byte by byte.

use proptest::prelude::*;

use super::field::{generator_power, multiply};
use super::{Code, Column, GRANULE, Recovery, Row, Sums};

/// P and Q as they are defined.
fn defined_sums(data: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let len = data[0].len();
    let (mut p, mut q) = (vec![0; len], vec![0; len]);
    for (number, column) in data.iter().enumerate() {
        for (at, &byte) in column.iter().enumerate() {
            p[at] ^= byte;
            q[at] ^= multiply(generator_power(number), byte);
        }
    }
    (p, q)
}

/// Bytes without a pattern that a wrong place could repeat.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

fn noise_columns(count: usize, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| noise(len, number as u64)).collect()
}

/// A buffer whose part from `offset` is filled and has a margin on both sides that must stay.
#[derive(Debug)]
struct Placed {
    bytes: Vec<u8>,
    offset: usize,
    len: usize,
}

const MARGIN: u8 = 0xa5;

impl Placed {
    fn new(content: &[u8], offset: usize) -> Self {
        let mut bytes = vec![MARGIN; offset + content.len() + 64];
        bytes[offset..offset + content.len()].copy_from_slice(content);
        Self {
            bytes,
            offset,
            len: content.len(),
        }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.offset..self.offset + self.len]
    }

    fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.offset..self.offset + self.len]
    }

    fn margins_stayed(&self) -> bool {
        let margins = self.bytes[..self.offset]
            .iter()
            .chain(&self.bytes[self.offset + self.len..]);
        margins.into_iter().all(|&byte| byte == MARGIN)
    }
}

/// Columns at odd addresses: their content and their offsets.
fn placed_columns(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Placed>> {
    (count, 1usize..9, any::<u64>())
        .prop_flat_map(|(count, granules, seed)| {
            let offsets = prop::collection::vec(0usize..64, count);
            offsets.prop_map(move |offsets| (offsets, granules * GRANULE, seed))
        })
        .prop_map(|(offsets, len, seed)| {
            let place = |(number, offset)| Placed::new(&noise(len, seed.wrapping_add(number as u64)), offset);
            offsets.into_iter().enumerate().map(place).collect()
        })
}

fn contents(columns: &[Placed]) -> Vec<Vec<u8>> {
    columns.iter().map(|column| column.get().to_vec()).collect()
}

proptest! {
    #[test]
    fn parity_sums_are_as_defined_at_any_address_and_length(mut columns in placed_columns(3..20)) {
        let (p, q) = (columns.pop().unwrap(), columns.pop().unwrap());
        let expected = defined_sums(&contents(&columns));
        let data: Vec<_> = columns.iter().map(|column| Some(column.get())).collect();
        for code in Code::all() {
            for (with_p, with_q) in [(true, true), (true, false), (false, true)] {
                // What was there before must not matter.
                let mut p = Placed::new(p.get(), p.offset);
                let mut q = Placed::new(q.get(), q.offset);
                let before = (p.get().to_vec(), q.get().to_vec());
                code.sums(Sums { p: with_p.then(|| p.get_mut()), q: with_q.then(|| q.get_mut()) }, &data);
                prop_assert_eq!(p.get(), if with_p { &expected.0 } else { &before.0 }, "P, {}", code.name());
                prop_assert_eq!(q.get(), if with_q { &expected.1 } else { &before.1 }, "Q, {}", code.name());
                prop_assert!(p.margins_stayed() && q.margins_stayed());
            }
        }
    }

    #[test]
    fn updated_parity_is_that_of_the_new_content(
        mut columns in placed_columns(2..20),
        column in any::<prop::sample::Index>(),
        offsets in [0usize..64, 0usize..64],
        with in prop::sample::select(vec![(true, true), (true, false), (false, true)]),
    ) {
        let new = columns.pop().unwrap();
        let mut data = contents(&columns);
        let column = column.index(data.len());
        let before = defined_sums(&data);
        data[column] = new.get().to_vec();
        let after = defined_sums(&data);
        for code in Code::all() {
            let mut p = Placed::new(&before.0, offsets[0]);
            let mut q = Placed::new(&before.1, offsets[1]);
            let sums = Sums { p: with.0.then(|| p.get_mut()), q: with.1.then(|| q.get_mut()) };
            code.update(sums, column, columns[column].get(), new.get());
            prop_assert_eq!(p.get(), if with.0 { &after.0 } else { &before.0 }, "P, {}", code.name());
            prop_assert_eq!(q.get(), if with.1 { &after.1 } else { &before.1 }, "Q, {}", code.name());
            prop_assert!(p.margins_stayed() && q.margins_stayed());
        }
    }

    #[test]
    fn a_column_that_is_not_there_counts_as_zeros_in_parity(
        there in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let mut data = noise_columns(there.len(), GRANULE);
        for (column, _) in data.iter_mut().zip(&there).filter(|(_, there)| !**there) {
            column.fill(0);
        }
        let expected = defined_sums(&data);
        let given: Vec<_> = data.iter().zip(&there).map(|(column, there)| there.then_some(&column[..])).collect();
        for code in Code::all() {
            let (mut p, mut q) = (noise(GRANULE, 100), noise(GRANULE, 101));
            code.sums(Sums { p: Some(&mut p), q: Some(&mut q) }, &given);
            prop_assert_eq!((&p, &q), (&expected.0, &expected.1), "{}", code.name());
        }
    }
}

/// A whole row: data, P, Q.
struct WholeRow {
    data: Vec<Vec<u8>>,
    p: Vec<u8>,
    q: Vec<u8>,
}

impl WholeRow {
    fn new(columns: usize, len: usize) -> Self {
        let data = noise_columns(columns, len);
        let (p, q) = defined_sums(&data);
        Self { data, p, q }
    }

    fn columns(&self) -> Vec<Column> {
        let data = (0..self.data.len()).map(Column::Data);
        data.chain([Column::P, Column::Q]).collect()
    }

    fn get(&self, column: Column) -> &[u8] {
        match column {
            Column::Data(number) => &self.data[number],
            Column::P => &self.p,
            Column::Q => &self.q,
        }
    }

    /// What comes of a row that has nothing but what `recovery` asks for.
    fn recovered(&self, code: Code, recovery: Recovery, wanted: [bool; 2]) -> [Option<Vec<u8>>; 2] {
        let read = |column| recovery.needs(column).then(|| self.get(column));
        let data: Vec<_> = (0..self.data.len())
            .map(|number| read(Column::Data(number)))
            .collect();
        let row = Row {
            data: &data,
            p: read(Column::P),
            q: read(Column::Q),
        };
        let mut outs = wanted.map(|wanted| wanted.then(|| noise(self.p.len(), 1000)));
        code.recover(recovery, row, outs.each_mut().map(|out| out.as_deref_mut()));
        outs
    }
}

#[test]
fn parity_gives_back_every_column_that_is_missing_alone() {
    for columns in 1..=16 {
        let row = WholeRow::new(columns, GRANULE);
        for (missing, code) in row
            .columns()
            .into_iter()
            .flat_map(|one| Code::all().map(move |code| (one, code)))
        {
            let recovery = Recovery::of(missing, None);
            assert!(
                missing == Column::Q || !recovery.needs(Column::Q),
                "P is enough for {missing:?}"
            );
            let [out, _] = row.recovered(code, recovery, [true, false]);
            assert_eq!(
                out.as_deref(),
                Some(row.get(missing)),
                "{missing:?} of {columns}, {}",
                code.name()
            );
        }
    }
}

#[test]
fn parity_gives_back_every_two_columns_that_are_missing_together() {
    let mut seen = 0;
    for columns in 2..=16 {
        let row = WholeRow::new(columns, GRANULE);
        for first in row.columns() {
            for second in row.columns().into_iter().filter(|&second| second != first) {
                for code in Code::all() {
                    let [a, b] = row.recovered(code, Recovery::of(first, Some(second)), [true, true]);
                    let found = (a.as_deref(), b.as_deref());
                    let expected = (Some(row.get(first)), Some(row.get(second)));
                    assert_eq!(
                        found,
                        expected,
                        "{first:?} and {second:?} of {columns}, {}",
                        code.name()
                    );
                }
                seen += 1;
            }
        }
    }
    // (n + 2)(n + 1) ordered pairs for n = 2..=16.
    assert_eq!(seen, (2..=16).map(|n| (n + 2) * (n + 1)).sum::<usize>());
}

#[test]
fn one_of_two_columns_that_parity_could_give_back_is_computed_alone() {
    let row = WholeRow::new(5, GRANULE);
    for code in Code::all() {
        let recovery = Recovery::of(Column::Data(3), Some(Column::Data(1)));
        let [first, none] = row.recovered(code, recovery, [true, false]);
        assert_eq!((first.as_deref(), none), (Some(row.get(Column::Data(3))), None));
        let [none, second] = row.recovered(code, recovery, [false, true]);
        assert_eq!((none, second.as_deref()), (None, Some(row.get(Column::Data(1)))));
    }
}

#[test]
fn parity_of_the_widest_row_gives_back_its_last_columns() {
    let row = WholeRow::new(super::MAX_COLUMNS, GRANULE);
    let (first, second) = (Column::Data(254), Column::Data(253));
    for code in Code::all() {
        let [a, b] = row.recovered(code, Recovery::of(first, Some(second)), [true, true]);
        assert_eq!(
            (a.as_deref(), b.as_deref()),
            (Some(row.get(first)), Some(row.get(second)))
        );
    }
}

#[test]
fn q_weighs_the_columns_with_the_known_powers_in_every_parity_code() {
    // Columns of ones: the Q of column i alone is g^i, known from Linux' lib/raid6 (raid6_gfexp).
    let known = [
        1, 2, 4, 8, 16, 32, 64, 128, 0x1d, 0x3a, 0x74, 0xe8, 0xcd, 0x87, 0x13, 0x26,
    ];
    let ones = [1; GRANULE];
    for code in Code::all() {
        for (number, power) in known.into_iter().enumerate() {
            let mut data = vec![None; number + 1];
            data[number] = Some(&ones[..]);
            let mut q = [0; GRANULE];
            code.sums(
                Sums {
                    p: None,
                    q: Some(&mut q),
                },
                &data,
            );
            assert_eq!(q, [power; GRANULE], "column {number}, {}", code.name());
        }
    }
}

#[test]
fn every_parity_code_multiplies_every_byte_by_every_power() {
    let bytes: Vec<u8> = (0..=255).chain(0..=255).collect();
    let zeros = [0; GRANULE];
    for code in Code::all() {
        for column in 0..super::MAX_COLUMNS {
            let expected: Vec<u8> = bytes
                .iter()
                .map(|&byte| multiply(generator_power(column), byte))
                .collect();
            let mut q = zeros;
            code.update(
                Sums {
                    p: None,
                    q: Some(&mut q),
                },
                column,
                &zeros,
                &bytes,
            );
            assert_eq!(q[..], expected, "column {column}, {}", code.name());
        }
    }
}

#[test]
fn the_fastest_parity_code_is_the_first_and_portable_code_the_last() {
    let names: Vec<_> = Code::all().map(Code::name).collect();
    assert_eq!(names.first(), Some(&Code::fastest().name()));
    assert_eq!(names.last(), Some(&"portable"));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(names.contains(&"AVX2"), std::is_x86_feature_detected!("avx2"));
}

#[test]
#[should_panic(expected = "all of 512 bytes")]
fn parity_of_columns_of_different_lengths_is_refused() {
    let (mut p, short) = ([0; GRANULE], [0; GRANULE / 2]);
    Code::fastest().sums(
        Sums {
            p: Some(&mut p),
            q: None,
        },
        &[Some(&short)],
    );
}

#[test]
#[should_panic(expected = "1 of Recovery")]
fn a_row_that_lacks_more_than_its_parity_was_told_is_refused() {
    let (mut out, column) = ([0; GRANULE], [0; GRANULE]);
    let data = [None, None, Some(&column[..])];
    let row = Row {
        data: &data,
        p: Some(&column),
        q: Some(&column),
    };
    Code::fastest().recover(Recovery::of(Column::Data(0), None), row, [Some(&mut out), None]);
}
