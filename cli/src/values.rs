//! What people write on the command line: sizes, ranges, placements, times, words of the contract.

use std::fs;
use std::str::FromStr as _;

use ashlar_engine::types::{ByteSize, Extent as EngineExtent};
use ashlar_openapi::scrubs::ScrubSchedule;
use ashlar_openapi::values::{MOST, Track, Tracks};
use ashlar_openapi::{Bytes, Extent, Natural, Range, Timestamp};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::DeserializeOwned;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// Reads `10GiB`, `1.5TiB` or a number of bytes.
pub(crate) fn size(text: &str) -> Result<Bytes, String> {
    let bytes = match text.split_once('.') {
        Some((whole, rest)) => fraction(whole, rest).ok_or_else(|| {
            format!("{text:?} is not a whole number of bytes: write it like 10GiB, 1.5TiB or 4096")
        })?,
        None => ByteSize::from_str(text).map_err(|error| error.to_string())?.0,
    };
    within(bytes)
}

fn within(bytes: u64) -> Result<Bytes, String> {
    if bytes > MOST {
        return Err(format!(
            "sizes and addresses go up to {MOST} bytes (8PiB less one)"
        ));
    }
    Ok(Bytes(bytes))
}

/// `whole.rest`, where `rest` is digits and a unit, if that is a whole number of bytes.
fn fraction(whole: &str, rest: &str) -> Option<u64> {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (decimals, unit) = rest.split_at(digits);
    let unit = u128::from(ByteSize::from_str(&format!("1{unit}")).ok()?.0);
    if whole.is_empty() || decimals.is_empty() || !whole.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10u128.checked_pow(u32::try_from(digits).ok()?)?;
    let value = format!("{whole}{decimals}")
        .parse::<u128>()
        .ok()?
        .checked_mul(unit)?;
    (value % scale == 0).then_some(u64::try_from(value / scale).ok())?
}

/// Bytes per second, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<Bytes>);

/// Reads a rate like `100MiB` (per second), or `none`.
pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        Ok(Limit(None))
    } else {
        size(text).map(|bytes| Limit(Some(bytes)))
    }
}

/// How often something is done, or never by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Every(pub(crate) Option<Natural>);

/// Reads `12h` or `30d` as hours, or `none`.
pub(crate) fn every(text: &str) -> Result<Every, String> {
    if text == "none" {
        return Ok(Every(None));
    }
    let hours = [("h", 1), ("d", 24)].into_iter().find_map(|(unit, hours)| {
        let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(hours)
    });
    match hours.filter(|hours| (1..=ScrubSchedule::MOST_HOURS).contains(hours)) {
        Some(hours) => Ok(Every(Some(Natural(hours)))),
        None => Err(format!(
            "{text:?} is no time: write it like 12h or 30d, up to 366d, or none"
        )),
    }
}

/// Seconds, or as is usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) Option<Natural>);

/// Reads seconds, or `usual`.
pub(crate) fn wait(text: &str) -> Result<Wait, String> {
    if text == "usual" {
        return Ok(Wait(None));
    }
    let seconds = text
        .parse::<u32>()
        .ok()
        .filter(|seconds| i32::try_from(*seconds).is_ok());
    let wait = seconds.map(|seconds| Wait(Some(Natural(seconds))));
    wait.ok_or_else(|| format!("{text:?} is neither a number of seconds nor `usual`"))
}

/// Reads `1GiB+64MiB`, or `100/0-120/14` in cylinders and heads.
pub(crate) fn extent(text: &str) -> Result<Extent, String> {
    if let Some((offset, length)) = text.split_once('+') {
        let range = Range {
            offset: size(offset)?,
            length: size(length)?,
        };
        within(range.offset.0 + range.length.0)?;
        return Ok(Extent::Bytes(range));
    }
    let wrong =
        || format!("{text:?} is no range: write it like 1GiB+64MiB, or 100/0-120/14 in cylinders and heads");
    match EngineExtent::from_str(text) {
        Ok(EngineExtent::Tracks { from, to }) => {
            let track = |cylinder, head| Track {
                cylinder: Natural(cylinder),
                head: Natural(head),
            };
            Ok(Extent::Tracks(Tracks {
                from: track(from.cylinder, from.head),
                to: track(to.cylinder, to.head),
            }))
        }
        _ => Err(wrong()),
    }
}

/// Reads one range in bytes.
pub(crate) fn range(text: &str) -> Result<Range, String> {
    match extent(text)? {
        Extent::Bytes(range) => Ok(range),
        Extent::Tracks(_) => Err(format!(
            "{text:?} is in tracks: write it in bytes, like 1GiB+64MiB"
        )),
    }
}

/// Reads ranges separated by commas, or from a file as `@FILE`: separated by commas or white space, `#` begins a
/// comment.
fn extents(text: &str) -> Result<Vec<Extent>, String> {
    let read;
    let list = match text.strip_prefix('@') {
        Some(path) => {
            read = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            read.lines()
                .map(|line| line.split('#').next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join(" ")
        }
        None => text.to_owned(),
    };
    let separated = list.split([',', ' ', '\t']).filter(|part| !part.is_empty());
    let found: Vec<Extent> = separated.map(extent).collect::<Result<_, _>>()?;
    if found.is_empty() {
        Err(format!("{text:?} holds no range"))
    } else {
        Ok(found)
    }
}

/// Ranges, and the RAID group that they are to lie on, as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placing {
    pub(crate) ranges: Vec<Extent>,
    pub(crate) raid_group: String,
}

/// Reads `RANGES=RAID-GROUP`.
pub(crate) fn placing(text: &str) -> Result<Placing, String> {
    let wrong = || format!("{text:?} is no placement: write it like 0+10GiB=fast, or @FILE=fast");
    let (ranges, raid_group) = text.rsplit_once('=').ok_or_else(wrong)?;
    if raid_group.is_empty() {
        return Err(wrong());
    }
    Ok(Placing {
        ranges: extents(ranges)?,
        raid_group: raid_group.to_owned(),
    })
}

/// Reads a moment like `2026-12-31T00:00:00Z`, or how far it is away: `90d`, `12h`, `30m`.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(Timestamp(at));
    }
    let wrong = || format!("{text:?} is no time: write it like 90d, 12h, 30m or 2026-12-31T00:00:00Z");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let away = match unit {
        "d" => Duration::days(number.into()),
        "h" => Duration::hours(number.into()),
        "m" => Duration::minutes(number.into()),
        _ => return Err(wrong()),
    };
    OffsetDateTime::now_utc()
        .checked_add(away)
        .map(Timestamp)
        .ok_or_else(wrong)
}

/// One of the contract's words.
pub(crate) fn word<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| serde_json::from_value(word.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_of_bytes_however_written() {
        assert_eq!(size("4096"), Ok(Bytes(4096)));
        assert_eq!(size("10GiB"), Ok(Bytes(10 << 30)));
        assert_eq!(size("1.5TiB"), Ok(Bytes(3 << 39)));
        assert_eq!(size("0.5KiB"), Ok(Bytes(512)));
        assert_eq!(size("2.0"), Ok(Bytes(2)));
        for wrong in [
            "1.1GiB", "1.5", ".5KiB", "1.KiB", "1.5XiB", "-1.5KiB", "1.5.5KiB", "10GB", "8PiB", "1e3", "",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(size(&format!("1.{}KiB", "0".repeat(60))).is_err());
    }

    #[test]
    fn how_often_is_in_hours_or_days_or_never() {
        assert_eq!(every("12h"), Ok(Every(Some(Natural(12)))));
        assert_eq!(every("30d"), Ok(Every(Some(Natural(720)))));
        assert_eq!(every("none"), Ok(Every(None)));
        for wrong in ["0h", "367d", "30", "1w", "h", "-1d", "99999999999d", ""] {
            assert!(every(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_are_in_bytes_or_in_tracks() {
        let bytes = |offset, length| {
            Extent::Bytes(Range {
                offset: Bytes(offset),
                length: Bytes(length),
            })
        };
        assert_eq!(extent("1.5KiB+64MiB"), Ok(bytes(1536, 64 << 20)));
        let track = |cylinder, head| Track {
            cylinder: Natural(cylinder),
            head: Natural(head),
        };
        let tracks = Tracks {
            from: track(100, 0),
            to: track(120, 14),
        };
        assert_eq!(extent("100/0-120/14"), Ok(Extent::Tracks(tracks)));
        for wrong in ["1GiB", "0-64MiB", "100/0", "100/0-", "7PiB+7PiB", "a+b", ""] {
            assert!(extent(wrong).is_err(), "{wrong}");
        }
        assert!(range("100/0-120/14").is_err());
    }

    #[test]
    fn placements_name_ranges_or_a_file_of_them_and_a_raid_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranges");
        fs::write(&path, "# mine\n0+1KiB, 4KiB+1KiB\n\n8KiB+1KiB # last\n").unwrap();
        let placed = placing(&format!("@{}=fast", path.display())).unwrap();
        assert_eq!((placed.ranges.len(), placed.raid_group.as_str()), (3, "fast"));
        assert_eq!(
            placed.ranges[..2],
            placing("0+1KiB,4KiB+1KiB=fast").unwrap().ranges
        );
        for wrong in [
            "0+1KiB",
            "0+1KiB=",
            "0+1KiB=fast=1",
            "=fast",
            ",=fast",
            "@/nowhere=fast",
        ] {
            assert!(placing(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_moments_or_distances() {
        let at = moment("2026-12-31T00:00:00Z").unwrap();
        assert_eq!(at.0.unix_timestamp(), 1_798_675_200);
        let away = moment("2d").unwrap().0 - OffsetDateTime::now_utc();
        assert!(away > Duration::hours(47) && away <= Duration::hours(48));
        for wrong in ["", "d", "2", "2w", "-2d", "2026-12-31", "ä"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
