//! The appliance process: everything around the engine that people and programs manage it by.
//!
//! Downwards: `api` (HTTP) → `app` (what is asked, without HTTP) → `catalog` (Postgres) and `engine` (the appliance on the
//! data plane). `background` reconciles; `auth` knows credentials; `listen`, `certificate`, `postgres`, `data_dir`,
//! `files` and `stand_back` know the operating system.

pub mod api;
pub mod app;
pub mod auth;
pub mod background;
pub mod catalog;
pub mod certificate;
pub mod data_dir;
pub mod engine;
pub mod files;
pub mod listen;
pub mod log_ring;
pub mod network;
pub mod postgres;
pub mod serve;
pub mod stand_back;
pub mod steps;
