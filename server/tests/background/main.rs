//! What the appliance does by itself, with a real engine on files and a real private Postgres.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bundle;
#[allow(dead_code, reason = "other tests use other parts of it")]
#[path = "../catalog/cluster.rs"]
mod cluster;
mod engine_events;
mod events;
mod format;
mod jobs;
mod life;
mod prune;
mod rebuild;
mod scrub;
mod webhooks;
