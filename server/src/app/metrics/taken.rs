//! Measurements of one moment, on their way into the text.
//!
//! They are written as they stand, with no table of labels in between: there may be a million of them.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::MetricType;

/// What a series is told by.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    object: Arc<Vec<(&'static str, String)>>,
    /// Which of the object's series it is.
    aspect: Option<(&'static str, &'static str)>,
}

impl Series {
    pub(super) fn of(labels: Vec<(&'static str, String)>) -> Self {
        Self {
            object: Arc::new(labels),
            aspect: None,
        }
    }

    /// The same object's, with one label more.
    pub(super) fn with(&self, name: &'static str, value: &'static str) -> Self {
        Self {
            object: Arc::clone(&self.object),
            aspect: Some((name, value)),
        }
    }
}

impl EncodeLabelSet for Series {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        for label in self.object.iter() {
            label.encode(encoder.encode_label())?;
        }
        match &self.aspect {
            Some(label) => label.encode(encoder.encode_label()),
            None => Ok(()),
        }
    }
}

/// Times by their bounds in seconds, ascending; the last bound is [`f64::INFINITY`].
#[derive(Debug)]
pub(super) struct Times {
    pub(super) sum_seconds: f64,
    pub(super) buckets: Vec<(f64, u64)>,
}

#[derive(Debug)]
enum Value {
    Gauge(u64),
    Counter(u64),
    Times(Times),
}

#[derive(Debug)]
struct Family {
    name: String,
    help: &'static str,
    kind: MetricType,
    values: Vec<(Series, Value)>,
}

#[derive(Debug, Default)]
pub(super) struct Taken(Vec<Family>);

impl Taken {
    pub(super) fn gauges(
        &mut self,
        name: impl Into<String>,
        help: &'static str,
        values: impl IntoIterator<Item = (Series, u64)>,
    ) {
        self.add(name.into(), help, MetricType::Gauge, Value::Gauge, values);
    }

    pub(super) fn counters(
        &mut self,
        name: impl Into<String>,
        help: &'static str,
        values: impl IntoIterator<Item = (Series, u64)>,
    ) {
        self.add(name.into(), help, MetricType::Counter, Value::Counter, values);
    }

    pub(super) fn histograms(
        &mut self,
        name: impl Into<String>,
        help: &'static str,
        values: impl IntoIterator<Item = (Series, Times)>,
    ) {
        self.add(name.into(), help, MetricType::Histogram, Value::Times, values);
    }

    fn add<T>(
        &mut self,
        name: String,
        help: &'static str,
        kind: MetricType,
        value: fn(T) -> Value,
        values: impl IntoIterator<Item = (Series, T)>,
    ) {
        let values = values.into_iter().map(|(series, one)| (series, value(one)));
        self.0.push(Family {
            name,
            help,
            kind,
            values: values.collect(),
        });
    }
}

impl Collector for Taken {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in &self.0 {
            let mut metric = encoder.encode_descriptor(&family.name, family.help, None, family.kind)?;
            for (series, value) in &family.values {
                let mut metric = metric.encode_family(series)?;
                match value {
                    Value::Gauge(value) => metric.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX))?,
                    Value::Counter(value) => metric.encode_counter::<Series, _, u64>(value, None)?,
                    Value::Times(times) => {
                        let count = times.buckets.iter().map(|(_, count)| count).sum();
                        metric.encode_histogram::<Series>(times.sum_seconds, count, &times.buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}
