//! Metrics in the text form of Prometheus: what the engine counts and how its objects are, at the moment of asking.
//!
//! Names begin with `ashlar_`; sizes are bytes, times seconds. Objects are labelled by number and name. What was asked of
//! an object is told once something was: of a hundred thousand volumes most stand still.

mod activity;
mod objects;
mod taken;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use self::objects::Objects;
use self::taken::{Series, Taken};
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

impl App {
    /// Everything that is measured.
    pub async fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("ashlar");
        let api = &self.api_metrics;
        registry.register("api_requests", "Requests answered", api.requests.clone());
        registry.register(
            "api_request_seconds",
            "Time from a request to its answer",
            api.seconds.clone(),
        );
        let mut taken = Taken::default();
        self.process_metrics(&mut taken);
        let looked = self.engine.with(async |appliance| {
            let objects = Objects {
                devices: appliance.devices().await,
                groups: appliance.group_statuses().await,
                volumes: appliance.volume_statuses().await,
                exports: appliance.exports().await,
            };
            (objects, appliance.statistics())
        });
        if let Ok((objects, statistics)) = looked.await {
            let known = objects.tell(&mut taken);
            activity::tell(&mut taken, &known, &objects.groups, &statistics);
        }
        registry.register_collector(Box::new(taken));
        let mut text = String::new();
        // Writing into memory does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn process_metrics(&self, taken: &mut Taken) {
        let one = |value| [(Series::default(), value)];
        let catalog = *self.catalog.state().borrow() == CatalogState::Ready;
        let engine = *self.engine.state().borrow() == EngineState::Open;
        taken.gauges(
            "catalog_up",
            "1 where the catalog can be used",
            one(u64::from(catalog)),
        );
        taken.gauges(
            "engine_up",
            "1 where the devices are open",
            one(u64::from(engine)),
        );
        let since = u64::try_from(self.started_at.unix_timestamp()).unwrap_or(0);
        taken.gauges("start_time_seconds", "When the process started", one(since));
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        taken.gauges("build_info", "Always 1", [(Series::of(version), 1)]);
    }
}
