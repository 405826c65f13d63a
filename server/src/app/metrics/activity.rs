//! What was asked of the engine's objects, and how long it took.

use std::collections::BTreeMap;

use ashlar_engine::appliance::{GroupStatus, Statistics};
use ashlar_engine::statistics::{Activity, BUCKETS, Kind, Totals};
use ashlar_engine::types::DeviceId;

use super::objects::Known;
use super::taken::{Series, Taken, Times};

/// The engine's bounds are powers of two in microseconds; one in so many is told.
const EVERY: usize = 2;

const KINDS: [(Kind, &str); 4] = [
    (Kind::Read, "read"),
    (Kind::Write, "write"),
    (Kind::Flush, "flush"),
    (Kind::Zero, "zero"),
];

/// Tells of everything that was asked for something.
pub(super) fn tell(taken: &mut Taken, known: &Known, groups: &[GroupStatus], statistics: &Statistics) {
    one_kind(taken, "volume", &active(&known.volumes, &statistics.volumes));
    one_kind(taken, "device", &active(&known.devices, &statistics.devices));
    one_kind(taken, "export", &active(&known.exports, &statistics.exports));
    let members: BTreeMap<DeviceId, &Activity> =
        statistics.devices.iter().map(|(id, one)| (*id, one)).collect();
    let of_members: Vec<_> = groups
        .iter()
        .filter_map(|group| Some((known.groups.get(&group.record.id)?, of_members(group, &members)?)))
        .collect();
    let groups: Vec<_> = of_members.iter().map(|(series, sum)| (*series, sum)).collect();
    one_kind(taken, "raid_group", &groups);
}

/// What the members of a group were asked together; `None`: nothing.
fn of_members(group: &GroupStatus, devices: &BTreeMap<DeviceId, &Activity>) -> Option<Activity> {
    let of = group.record.members.iter();
    of.filter_map(|member| devices.get(&member.device).copied())
        .copied()
        .reduce(|mut sum, one| {
            sum += one;
            sum
        })
}

fn active<'a, Id: Ord>(
    known: &'a BTreeMap<Id, Series>,
    active: &'a [(Id, Activity)],
) -> Vec<(&'a Series, &'a Activity)> {
    let series = |(id, activity): &'a (Id, Activity)| Some((known.get(id)?, activity));
    active.iter().filter_map(series).collect()
}

fn one_kind(taken: &mut Taken, object: &str, active: &[(&Series, &Activity)]) {
    let each = || {
        active.iter().flat_map(|(series, activity)| {
            let of = move |(kind, name): (Kind, &'static str)| (series.with("kind", name), activity.of(kind));
            KINDS.map(of)
        })
    };
    let count = |value: fn(&Totals) -> u64| each().map(move |(series, totals)| (series, value(totals)));
    taken.counters(
        format!("{object}_requests"),
        "Requests that began",
        count(|totals| totals.requests),
    );
    taken.counters(
        format!("{object}_errors"),
        "Requests that ended with an error",
        count(|totals| totals.errors),
    );
    taken.counters(
        format!("{object}_bytes"),
        "Bytes that were to be read, written or zeroed",
        count(|totals| totals.bytes),
    );
    taken.histograms(
        format!("{object}_request_seconds"),
        "Time that requests took, of which one in 32 is timed",
        each().map(|(series, totals)| (series, times(totals))),
    );
}

fn times(totals: &Totals) -> Times {
    let mut buckets = Vec::with_capacity(BUCKETS / EVERY);
    for (place, counts) in totals.latencies.chunks(EVERY).enumerate() {
        let last = place * EVERY + counts.len() - 1;
        let bound = match last + 1 == BUCKETS {
            true => f64::INFINITY,
            false => seconds(1 << last),
        };
        buckets.push((bound, counts.iter().sum()));
    }
    Times {
        sum_seconds: seconds(totals.micros),
        buckets,
    }
}

/// Whatever is lost beyond 53 bits: nobody measures 285 years to the microsecond.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timed_request_is_in_a_bucket_whose_bound_it_does_not_exceed() {
        let mut totals = Totals::default();
        // Up to 1 µs, up to 2 µs, up to 4 µs, and beyond all bounds.
        for (bucket, count) in [(0, 3), (1, 2), (2, 5), (BUCKETS - 1, 1)] {
            totals.latencies[bucket] = count;
        }
        totals.micros = 20_000_000;
        let times = times(&totals);
        assert!((times.sum_seconds - 20.0).abs() < 1e-9);
        assert_eq!(times.buckets[..2], [(2e-6, 5), (8e-6, 5)]);
        let last = times.buckets.last().copied();
        assert_eq!(last, Some((f64::INFINITY, 1)));
        assert!(times.buckets.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(times.buckets.iter().map(|(_, count)| count).sum::<u64>(), 11);
    }
}
