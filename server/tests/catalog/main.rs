//! The catalog on a real private Postgres.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod accounts;
mod cluster;
mod constraints;
mod keeper;
mod mirrors;
mod outbox;
mod work;
