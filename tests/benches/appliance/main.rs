//! What managing costs: the appliance's API beside a plain server on the same Postgres, an appliance of ten million
//! logical devices, a thousand listeners, and hosts while the API is busy.
//!
//! Parameters, from the environment:
//! `SECS`, `REPS`       seconds of a measurement (2), repetitions (3)
//! `APPLIANCE`          of "api scale listeners hosts" (all)
//! `VOLUMES`            volumes of the large appliance (100,000), of [`scale::SLICES`] logical devices each
//! `LISTENERS`          who follow the events (1,000)
//! `FOREIGN_MAX`        per cent of a core that others may use before a measurement is done again (15), `RETRIES` times
//!                      (3)
//! `ASHLAR_PROGRAM`     the program `ashlar` in its release build
//!
//! What is compared is measured in turns within one run, each time in another order, and the ratio of each turn counts:
//! compare rows of one run only. Both sides speak plain HTTP on the loopback address. Postgres and devices lie in
//! memory, but where it says that they lie on a disk: there a flush costs nothing, and what is left is our work.

mod api;
mod floor;
mod hosts;
mod listeners;
mod load;
mod scale;
mod signed_in;
mod table;
mod usage;

use std::path::Path;

use table::Row;

/// What is measured together.
type Section = fn() -> Vec<Row>;

/// A parameter.
fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| {
        text.replace(['_', ','], "")
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

fn seconds() -> std::time::Duration {
    std::time::Duration::from_secs(number("SECS", 2))
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(verb), Some(folder)) if verb == "floor" => return floor::serve(Path::new(&folder)),
        (Some(verb), Some(folder)) if verb == "make" => return scale::make(Path::new(&folder)),
        // What cargo passes on to benches means nothing here.
        _ => {}
    }
    let sections: [(&str, Section); 4] = [
        ("api", api::measure),
        ("scale", scale::measure),
        ("listeners", listeners::measure),
        ("hosts", hosts::measure),
    ];
    let wanted = std::env::var("APPLIANCE").unwrap_or_else(|_| "api scale listeners hosts".into());
    let mut rows = Vec::new();
    for (name, measure) in sections {
        if wanted.split_whitespace().any(|wanted| wanted == name) {
            rows.extend(measure());
        }
    }
    println!("\n{}", table::of(&rows));
}
