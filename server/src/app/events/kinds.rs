//! Every kind of event that there is: who asks for some by name is told of a slip of the pen.

/// What a webhook is tried out with; no event of the outbox.
pub const PROBE: &str = "webhook.probe";

/// The kinds of the outbox, sorted.
pub const KINDS: [&str; 39] = [
    "appliance.catalog_rebuilt",
    "appliance.changed",
    "appliance.imported",
    "device.added",
    "device.changed",
    "device.failed",
    "device.removed",
    "device.returned",
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
    "raid_group.state_changed",
    "raid_group.waiting",
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
