//! Accounts over the API, on a real private Postgres and a blank engine.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../catalog/cluster.rs"]
#[allow(dead_code, reason = "shared with the catalog's tests, which use all of it")]
mod cluster;
mod first_admin;
mod log;
mod sessions;
mod sign_in;
mod streams;
mod tokens;
mod users;
mod world;
