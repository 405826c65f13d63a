//! Lines of the table: ours, what it stands beside, the median of the turns' ratios with the least and the greatest of
//! them, and what is wanted.

#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Nothing,
    AtLeast(f64),
    AtMost(f64),
}

impl Wanted {
    fn told(self, found: f64) -> String {
        let told =
            |sign, wanted, is_met| format!("{sign} {wanted:.2} {}", if is_met { "met" } else { "MISSED" });
        match self {
            Self::Nothing => String::new(),
            Self::AtLeast(least) => told('≥', least, found >= least),
            Self::AtMost(most) => told('≤', most, found <= most),
        }
    }
}

/// How a figure is written.
pub(crate) type Unit = fn(f64) -> String;

pub(crate) fn bytes_per_second(figure: f64) -> String {
    format!("{:.0} MB/s", figure / 1e6)
}

pub(crate) fn per_second(figure: f64) -> String {
    format!("{figure:.0} /s")
}

/// Of seconds.
pub(crate) fn micros(figure: f64) -> String {
    format!("{:.1} µs", figure * 1e6)
}

pub(crate) fn heading(title: &str) {
    println!("\n{title}");
    line(["", "ours", "beside", "ratio (turns)", "wanted"]);
}

fn line([what, ours, beside, ratio, wanted]: [&str; 5]) {
    println!("  {what:<66} {ours:>13} {beside:>13}   {ratio:<22} {wanted}");
}

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A figure of ours and what it stands beside, of each turn. What is wanted is of the ratio.
pub(crate) fn compare(what: &str, unit: Unit, turns: &[(f64, f64)], wanted: Wanted) {
    let ratios = || turns.iter().map(|(ours, beside)| ours / beside);
    let ratio = median(ratios());
    let (least, most) = (
        ratios().fold(f64::INFINITY, f64::min),
        ratios().fold(0.0, f64::max),
    );
    line([
        what,
        &unit(median(turns.iter().map(|turn| turn.0))),
        &unit(median(turns.iter().map(|turn| turn.1))),
        &format!("{ratio:.2} ({least:.2}–{most:.2})"),
        &wanted.told(ratio),
    ]);
}

/// A figure that stands for itself, of each turn.
pub(crate) fn figure(what: &str, turns: impl Iterator<Item = f64>, wanted: Wanted) {
    let figure = median(turns);
    line([what, &format!("{figure:.2}"), "", "", &wanted.told(figure)]);
}
