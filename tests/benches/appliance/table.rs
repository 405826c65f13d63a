//! The table in the end: our figure, the peer's, their ratio, and what was wanted of it.

use std::fmt::Write as _;

/// What is wanted of a figure or of a ratio.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// It is only to be known.
    Nothing,
}

impl Wanted {
    fn is_met(self, value: f64) -> &'static str {
        let met = match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Nothing => return "",
        };
        if met { "yes" } else { "**no**" }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {}", figure(*bound)),
            Self::AtMost(bound) => write!(f, "≤ {}", figure(*bound)),
            Self::Nothing => f.write_str("–"),
        }
    }
}

/// A line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    what: String,
    ours: f64,
    /// The peer's figure, and the ratio, of which something is wanted.
    beside: Option<(f64, f64)>,
    wanted: Wanted,
}

impl Row {
    /// A figure of ours, of which something is wanted.
    pub(crate) fn alone(what: impl Into<String>, ours: f64, wanted: Wanted) -> Self {
        Self {
            what: what.into(),
            ours,
            beside: None,
            wanted,
        }
    }

    /// The medians of ours and of the peer's, and of their ratios turn by turn.
    pub(crate) fn beside(what: impl Into<String>, turns: &[(f64, f64)], wanted: Wanted) -> Self {
        let of = |figure: &dyn Fn(&(f64, f64)) -> f64| median(turns.iter().map(figure).collect());
        Self {
            what: what.into(),
            ours: of(&|turn| turn.0),
            beside: Some((of(&|turn| turn.1), of(&|turn| turn.0 / turn.1))),
            wanted,
        }
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// With as many digits as say something.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        beyond if beyond >= 100.0 => format!("{value:.0}"),
        beyond if beyond >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The lines as a table in Markdown.
pub(crate) fn of(rows: &[Row]) -> String {
    let mut text = String::from("| | ours | peer | ratio | wanted | met |\n|---|---:|---:|---:|---:|---|\n");
    for row in rows {
        let (peer, ratio, judged) = match row.beside {
            Some((peer, ratio)) => (figure(peer), figure(ratio), ratio),
            None => (String::new(), String::new(), row.ours),
        };
        let (ours, met) = (figure(row.ours), row.wanted.is_met(judged));
        // Writing into memory does not fail.
        let _ = writeln!(
            text,
            "| {} | {ours} | {peer} | {ratio} | {} | {met} |",
            row.what, row.wanted
        );
    }
    text
}
