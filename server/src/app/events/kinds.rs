//! Every kind of event that there is: who asks for some by name is told of a slip of the pen.

/// What a webhook is tried out with; no event of the outbox.
pub const PROBE: &str = "webhook.probe";

/// The kinds of the outbox, sorted.
pub const KINDS: [&str; 55] = [
    "appliance.catalog_rebuilt",
    "appliance.changed",
    "appliance.imported",
    "appliance.keys_rotated",
    "device.added",
    "device.changed",
    "device.failed",
    "device.removed",
    "device.returned",
    "device.spare_changed",
    "device.spare_unreadable",
    "device.suspect",
    "device.taken_back",
    "device.taken_out",
    "engine.events_lost",
    "export.changed",
    "export.created",
    "export.deleted",
    "job.cancelled",
    "job.cancelling",
    "job.changed",
    "job.created",
    "job.failed",
    "job.paused",
    "job.resumed",
    "job.started",
    "job.succeeded",
    "raid_group.changed",
    "raid_group.created",
    "raid_group.deleted",
    "raid_group.member_replaced",
    "raid_group.no_spare_fits",
    "raid_group.scrub_finished",
    "raid_group.scrub_mismatch",
    "raid_group.scrub_started",
    "raid_group.spare_took_over",
    "raid_group.state_changed",
    "raid_group.waiting",
    "token.created",
    "token.revoked",
    "user.changed",
    "user.created",
    "user.deleted",
    "user.session_ended",
    "volume.changed",
    "volume.created",
    "volume.deleted",
    "volume.expanded",
    "volume.not_serving",
    "volume.placed",
    "volume.serving",
    "webhook.changed",
    "webhook.created",
    "webhook.deleted",
    "webhook.secret_rotated",
];

/// Whether `wanted` is a kind, or the beginning of some that ends in a dot.
pub fn is_known(wanted: &str) -> bool {
    KINDS.iter().any(|kind| matches(kind, wanted))
}

/// Whether a kind is the wanted one, or begins with it where that ends in a dot.
pub fn matches(kind: &str, wanted: &str) -> bool {
    kind == wanted || wanted.ends_with('.') && kind.starts_with(wanted)
}

/// Whether it tells of users and tokens. Only whoever manages them hears of those.
pub fn concerns_accounts(kind: &str) -> bool {
    ["user.", "token."].iter().any(|area| kind.starts_with(area))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Every text of the sources that looks like a kind, in places where kinds stand.
    fn written(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                written(&path, found);
            } else if path.file_name().is_some_and(|name| name != "kinds.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap();
                found.extend(
                    text.split('"')
                        .skip(1)
                        .step_by(2)
                        .filter(|text| looks_like(text))
                        .map(str::to_owned),
                );
            }
        }
    }

    fn looks_like(text: &str) -> bool {
        let areas: BTreeSet<&str> = KINDS.iter().map(|kind| kind.split('.').next().unwrap()).collect();
        let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        match text.split_once('.') {
            Some((area, rest)) => (areas.contains(area) || ["user", "token"].contains(&area)) && word(rest),
            None => false,
        }
    }

    #[test]
    fn every_kind_that_is_written_is_in_the_list_and_every_other_is_not() {
        let mut found = BTreeSet::new();
        written(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        found.retain(|text| !text.ends_with(".json"));
        assert_eq!(found, KINDS.iter().map(|kind| (*kind).to_owned()).collect());
        assert!(KINDS.is_sorted());
    }
}
