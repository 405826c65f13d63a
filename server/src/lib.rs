//! The appliance process: everything around the engine that people and programs manage it by.

pub mod auth;
pub mod catalog;
pub mod certificate;
pub mod data_dir;
pub mod engine;
pub mod files;
pub mod listen;
pub mod postgres;
pub mod steps;

pub mod api {
    pub mod decode;
    pub mod incoming;
}
