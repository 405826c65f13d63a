//! Metrics in the text form of Prometheus: what the engine counts and how its objects are, at the moment of asking.
//!
//! Names begin with `ashlar_`; sizes are bytes, times seconds. Objects are labelled by number and name.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::App;
use crate::catalog::CatalogState;
use crate::engine::EngineState;

type Labels = Vec<(&'static str, String)>;

/// What the API counts of itself.
pub struct ApiMetrics {
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram>,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // 0.5 ms to 16 s.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))),
        }
    }
}

impl ApiMetrics {
    /// Counts one answer.
    pub fn note(&self, operation: &'static str, status: u16, took: std::time::Duration) {
        let labels = vec![
            ("operation", operation.to_owned()),
            ("status", status.to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
        let labels = vec![("operation", operation.to_owned())];
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// A registry being filled with what is true now.
struct Now {
    registry: Registry,
}

impl Now {
    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, family);
    }
}

/// An object's labels.
fn object(number: u32, name: Option<&str>) -> Labels {
    vec![
        ("number", number.to_string()),
        ("name", name.unwrap_or_default().to_owned()),
    ]
}

/// One gauge per state that an object can be in: 1 for the one that it is in.
fn states<'a>(labels: &Labels, all: &'a [&'static str], is: &'a str) -> Vec<(Labels, u64)> {
    let one = |state: &&'static str| {
        let mut labels = labels.clone();
        labels.push(("state", (*state).to_owned()));
        (labels, u64::from(*state == is))
    };
    all.iter().map(one).collect()
}

impl App {
    /// Everything that is measured.
    pub async fn metrics(&self) -> String {
        let mut now = Now {
            registry: Registry::with_prefix("ashlar"),
        };
        let api = &self.api_metrics;
        now.registry
            .register("api_requests", "Requests answered", api.requests.clone());
        now.registry.register(
            "api_request_seconds",
            "Time from a request to its answer",
            api.seconds.clone(),
        );
        self.process_metrics(&mut now);
        let looked = self.engine.with(async |appliance| {
            let devices = appliance.devices().await;
            let groups = appliance.group_statuses().await;
            let volumes = appliance.volume_statuses().await;
            let exports = appliance.exports().await;
            (devices, groups, volumes, exports)
        });
        if let Ok((devices, groups, volumes, exports)) = looked.await {
            device_metrics(&mut now, &devices);
            group_metrics(&mut now, &groups);
            volume_metrics(&mut now, &volumes);
            export_metrics(&mut now, &exports);
        }
        let mut text = String::new();
        // Writing into memory does not fail.
        let _ = encode(&mut text, &now.registry);
        text
    }

    fn process_metrics(&self, now: &mut Now) {
        let catalog = *self.catalog.state().borrow() == CatalogState::Ready;
        let engine = *self.engine.state().borrow() == EngineState::Open;
        now.gauges(
            "catalog_up",
            "1 where the catalog can be used",
            [(Vec::new(), u64::from(catalog))],
        );
        now.gauges(
            "engine_up",
            "1 where the devices are open",
            [(Vec::new(), u64::from(engine))],
        );
        let since = u64::try_from(self.started_at.unix_timestamp()).unwrap_or(0);
        now.gauges(
            "start_time_seconds",
            "When the process started",
            [(Vec::new(), since)],
        );
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        now.gauges("build_info", "Always 1", [(version, 1)]);
    }
}

fn device_metrics(now: &mut Now, devices: &[ashlar_engine::appliance::DeviceState]) {
    let labels = |device: &ashlar_engine::appliance::DeviceState| {
        object(device.record.number.0, device.name.as_deref())
    };
    let all = ["in_service", "absent", "failed"];
    let is = |device: &ashlar_engine::appliance::DeviceState| match (device.present, &device.failure) {
        (_, Some(_)) => "failed",
        (true, None) => "in_service",
        (false, None) => "absent",
    };
    let of = devices
        .iter()
        .flat_map(|device| states(&labels(device), &all, is(device)));
    now.gauges("device_state", "1 for the state that a device is in", of);
    let of = devices
        .iter()
        .map(|device| (labels(device), device.record.capacity));
    now.gauges("device_capacity_bytes", "Capacity of a device", of);
}

fn group_metrics(now: &mut Now, groups: &[ashlar_engine::appliance::GroupStatus]) {
    use ashlar_engine::raid::GroupState;
    let labels =
        |group: &ashlar_engine::appliance::GroupStatus| object(group.record.number.0, group.name.as_deref());
    let all = ["optimal", "degraded", "rebuilding", "failed", "waiting"];
    let is = |group: &ashlar_engine::appliance::GroupStatus| match group.state {
        Some(GroupState::Optimal) => "optimal",
        Some(GroupState::Degraded) => "degraded",
        Some(GroupState::Rebuilding) => "rebuilding",
        Some(GroupState::Failed) => "failed",
        None => "waiting",
    };
    let of = groups
        .iter()
        .flat_map(|group| states(&labels(group), &all, is(group)));
    now.gauges("raid_group_state", "1 for the state that a RAID group is in", of);
    let of = groups
        .iter()
        .map(|group| (labels(group), group.record.layout.capacity()));
    now.gauges("raid_group_capacity_bytes", "Capacity of a RAID group", of);
    let of = groups
        .iter()
        .map(|group| (labels(group), u64::from(group.free_slices) * group.record.slice));
    now.gauges("raid_group_free_bytes", "What is free of a RAID group", of);
    let of = groups
        .iter()
        .map(|group| (labels(group), group.regions_to_sync as u64 * group.record.region));
    now.gauges(
        "raid_group_unequal_bytes",
        "What must still be copied before all members are equal",
        of,
    );
}

fn volume_metrics(now: &mut Now, volumes: &[ashlar_engine::appliance::VolumeStatus]) {
    let labels = |volume: &ashlar_engine::appliance::VolumeStatus| {
        object(volume.record.number.0, Some(&volume.record.name))
    };
    let of = volumes
        .iter()
        .map(|volume| (labels(volume), u64::from(volume.serving)));
    now.gauges("volume_serving", "1 where hosts can use a volume", of);
    let of = volumes
        .iter()
        .map(|volume| (labels(volume), volume.record.capacity));
    now.gauges("volume_capacity_bytes", "Capacity of a volume", of);
    let of = volumes.iter().map(|volume| (labels(volume), volume.mapped));
    now.gauges("volume_mapped_bytes", "What is mapped of a volume", of);
    let of = volumes.iter().map(|volume| (labels(volume), volume.runs as u64));
    now.gauges("volume_map_runs", "Runs in a volume's map", of);
}

fn export_metrics(now: &mut Now, exports: &[ashlar_engine::appliance::ExportStatus]) {
    let labels = |export: &ashlar_engine::appliance::ExportStatus| vec![("name", export.record.name.clone())];
    let of = exports
        .iter()
        .map(|export| (labels(export), u64::from(export.offered)));
    now.gauges("export_offered", "1 where hosts can attach an export", of);
    let of = exports
        .iter()
        .map(|export| (labels(export), export.connections as u64));
    now.gauges("export_connections", "Connections of an export", of);
}
