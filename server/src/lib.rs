//! The appliance process: everything around the engine that people and programs manage it by.

pub mod catalog;
pub mod data_dir;
pub mod postgres;
