//! Any text is a value or is refused; a value shows itself as a text that is read as the same. A range that a volume
//! accepts lies in it.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use ashlar_engine::export::access::ClientRange;
use ashlar_engine::types::extent::{Extent, TrackAddress};
use ashlar_engine::types::{ByteRange, ByteSize, EmulationType};
use libfuzzer_sys::fuzz_target;

fn same<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    assert_eq!(value.to_string().parse().ok().as_ref(), Some(&value));
    Some(value)
}

fuzz_target!(|input: (u64, &str)| {
    let (number, text) = input;
    same::<ByteSize>(text);
    same::<ByteRange>(text);
    same::<TrackAddress>(text);
    same::<EmulationType>(text);
    same::<ClientRange>(text);
    let Some(extent) = same::<Extent>(text) else {
        return;
    };
    for (_, emulation) in EmulationType::ALL {
        if let Ok(range) = extent.resolve(emulation, number) {
            assert!(!range.is_empty() && range.end() <= number);
        }
    }
});
