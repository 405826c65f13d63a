//! How values look to people.

use ashlar_engine::types::{ByteRange, ByteSize};
use ashlar_openapi::{Bytes, Range, Timestamp};
use serde::Serialize;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;

use crate::json::Json;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Stands where there is nothing.
pub(crate) const NOTHING: &str = "-";

/// A text without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// A size in the largest binary unit that leaves a number before the point, with at most two digits behind it.
pub(crate) fn size(bytes: Bytes) -> String {
    let exact = ByteSize(bytes.0);
    let Some(unit) = (0..UNITS.len())
        .rev()
        .find(|unit| bytes.0 >> (10 * (unit + 1)) != 0)
    else {
        return format!("{exact}B");
    };
    let hundredths = (u128::from(bytes.0) * 100) >> (10 * (unit + 1));
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    let number = format!("{whole}.{rest:02}");
    format!(
        "{}{}",
        number.trim_end_matches('0').trim_end_matches('.'),
        UNITS[unit]
    )
}

/// A range as it can be given again.
pub(crate) fn range(range: Range) -> String {
    let exact = ByteRange::new(range.offset.0, range.length.0);
    exact.map_or_else(|| NOTHING.to_owned(), |range| range.to_string())
}

pub(crate) fn seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

pub(crate) fn moment(at: Timestamp) -> String {
    let whole = at.0.replace_nanosecond(0).unwrap_or(at.0);
    whole.format(&Rfc3339).unwrap_or_else(|_| NOTHING.to_owned())
}

/// A word of the contract as it stands in JSON.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => NOTHING.to_owned(),
    }
}

pub(crate) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// What there is, or a dash.
pub(crate) fn or_nothing<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

/// An object as lines `field: value`; fields of objects within it follow a dot.
pub(crate) fn fields(json: &Json) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect("", json, &mut found);
    found
}

fn collect(name: &str, json: &Json, found: &mut Vec<(String, String)>) {
    if let Some(text) = short(name, json) {
        found.push((name.to_owned(), text));
        return;
    }
    match json {
        Json::Object(fields) => {
            for (field, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                collect(&format!("{name}{dot}{field}"), value, found);
            }
        }
        Json::List(items) if items.iter().all(|item| short(name, item).is_some()) => {
            let texts: Vec<_> = items.iter().filter_map(|item| short(name, item)).collect();
            let text = if texts.is_empty() {
                NOTHING.to_owned()
            } else {
                texts.join(", ")
            };
            found.push((name.to_owned(), text));
        }
        Json::List(items) => {
            for (place, item) in items.iter().enumerate() {
                collect(&format!("{name}[{place}]"), item, found);
            }
        }
        // It is short.
        Json::Scalar(_) => {}
    }
}

/// What fits on one line: a scalar or a range.
fn short(name: &str, json: &Json) -> Option<String> {
    match json {
        Json::Scalar(value) => Some(scalar(name, value)),
        Json::Object(_) => as_range(json),
        Json::List(_) => None,
    }
}

fn scalar(name: &str, value: &Value) -> String {
    let field = name.rsplit('.').next().unwrap_or(name);
    match (value.as_u64(), value) {
        (_, Value::Null) => NOTHING.to_owned(),
        (_, Value::Bool(value)) => yes(*value),
        (_, Value::String(text)) => plain(text),
        (Some(rate), _) if field.ends_with("_bytes_per_s") => format!("{} per second", exactly(rate)),
        (Some(bytes), _) if is_size(field) => exactly(bytes),
        (_, value) => value.to_string(),
    }
}

/// A range as people write it.
fn as_range(json: &Json) -> Option<String> {
    let Json::Object(fields) = json else {
        return None;
    };
    let [(first, Json::Scalar(offset)), (second, Json::Scalar(length))] = fields.as_slice() else {
        return None;
    };
    let named = first == "offset" && second == "length";
    named.then_some(range(Range {
        offset: Bytes(offset.as_u64()?),
        length: Bytes(length.as_u64()?),
    }))
}

/// A size, and exactly how many bytes that is.
fn exactly(bytes: u64) -> String {
    let short = size(Bytes(bytes));
    if bytes < 1024 {
        short
    } else {
        format!("{short} ({bytes})")
    }
}

fn is_size(field: &str) -> bool {
    field.ends_with("_bytes") || field.starts_with("bytes_") || field == "bytes"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_never_too_large() {
        for (bytes, wanted) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            ((1 << 20) - 1, "1023.99KiB"),
            (10 << 30, "10GiB"),
            (u64::MAX, "15.99EiB"),
        ] {
            assert_eq!(size(Bytes(bytes)), wanted);
        }
    }

    #[test]
    fn times_are_told_by_their_two_largest_units() {
        assert_eq!(
            [59, 60, 3599, 3600, 90_061].map(seconds),
            ["59s", "1m00s", "59m59s", "1h00m", "25h01m"]
        );
    }

    #[test]
    fn an_object_is_told_field_by_field_in_its_order() {
        let text = r#"{"name": "a", "capacity_bytes": 1536, "rate_limit_bytes_per_s": null, "partial": true,
            "members": [{"device": "d"}, {"device": "e"}], "clients": [], "kinds": ["x", "y"],
            "block_bytes": 512, "mapped": [{"offset": 0, "length": 65536}, {"offset": 1048576, "length": 512}],
            "membership": {"role": 1}, "number": 7}"#;
        let told: Vec<_> = fields(&serde_json::from_str(text).unwrap());
        let lines: Vec<_> = told
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        assert_eq!(
            lines,
            [
                "name: a",
                "capacity_bytes: 1.5KiB (1536)",
                "rate_limit_bytes_per_s: -",
                "partial: yes",
                "members[0].device: d",
                "members[1].device: e",
                "clients: -",
                "kinds: x, y",
                "block_bytes: 512B",
                "mapped: 0+64KiB, 1MiB+512",
                "membership.role: 1",
                "number: 7"
            ]
        );
    }
}
