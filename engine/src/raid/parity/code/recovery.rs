//! How one or two missing columns of a row follow from the others.
//!
//! Let S be the sum of the data columns that are there, and P with it where P is needed; T the same with the weights of
//! Q. Then whatever is missing is a·S + b·T, and only the constants a and b differ. With data columns x and y:
//!
//! ```text
//! missing   S and T are                        solved
//! x         dₓ           (not needed)          dₓ = S
//! P, Q      P            Q                     P = S,  Q = T
//! x, P      P + dₓ       gˣ·dₓ                 dₓ = g⁻ˣ·T,  P = S + g⁻ˣ·T
//! x, Q      dₓ           Q + gˣ·dₓ             dₓ = S,  Q = gˣ·S + T
//! x, y      dₓ + dᵧ      gˣ·dₓ + gʸ·dᵧ         dₓ = (gʸ·S + T) / (gˣ + gʸ),  dᵧ = (gˣ·S + T) / (gˣ + gʸ)
//! ```

use super::MAX_COLUMNS;
use super::field::{generator_power, inverse, multiply};

/// A column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Data(usize),
    P,
    Q,
}

/// The constants of a·S + b·T.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weights {
    pub(super) s: u8,
    pub(super) t: u8,
}

/// How to compute one or two columns that a row lacks from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    missing: [Option<Column>; 2],
    pub(super) weights: [Option<Weights>; 2],
}

impl Recovery {
    /// For a row that lacks `first`, and `second` as well.
    ///
    /// # Panics
    /// Where both are the same, or with a data column that is not below [`MAX_COLUMNS`].
    pub fn of(first: Column, second: Option<Column>) -> Self {
        let missing = [Some(first), second];
        for column in missing.into_iter().flatten() {
            assert!(
                !matches!(column, Column::Data(number) if number >= MAX_COLUMNS),
                "{column:?}"
            );
        }
        assert_ne!(missing[0], missing[1], "two columns are missing");
        Self {
            missing,
            weights: [
                Some(weights(first, second)),
                second.map(|second| weights(second, Some(first))),
            ],
        }
    }

    /// How many of the missing columns are data.
    pub(super) fn missing_data(&self) -> usize {
        let missing = self.missing.iter().flatten();
        missing.filter(|column| matches!(column, Column::Data(_))).count()
    }

    /// Whether what is missing is computed from this column.
    pub fn needs(&self, column: Column) -> bool {
        let lacks = |column| self.missing.contains(&Some(column));
        let is_needed = match column {
            Column::Data(_) => true,
            Column::P => self.missing_data() > 0,
            // P alone costs less, where it is there.
            Column::Q => self.missing_data() > usize::from(!lacks(Column::P)),
        };
        is_needed && !lacks(column)
    }
}

fn weights(wanted: Column, also_missing: Option<Column>) -> Weights {
    let g = generator_power;
    let (s, t) = match (wanted, also_missing) {
        (Column::Data(x), Some(Column::Data(y))) => {
            let divisor = inverse(g(x) ^ g(y));
            (multiply(g(y), divisor), divisor)
        }
        (Column::Data(x), Some(Column::P)) => (0, inverse(g(x))),
        (Column::P, Some(Column::Data(x))) => (1, inverse(g(x))),
        (Column::Q, Some(Column::Data(x))) => (g(x), 1),
        (Column::Q, _) => (0, 1),
        (Column::Data(_) | Column::P, _) => (1, 0),
    };
    Weights { s, t }
}
