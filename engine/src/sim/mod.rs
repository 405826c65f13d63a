//! Deterministic simulation: the engine's own code on simulated devices and a simulated clock, from one seed.
//!
//! One process runs one seed. Its devices outlive the *lives* of the program under test ([`world::World`]): each life
//! is a paused single-thread runtime that ends in a crash, after which the devices keep what a real one might. Seeded
//! clients drive the volumes meanwhile, and the [`oracle`] knows what each sector may hold. What may be hurt is
//! decided by the [`atlas`], so that a failing run is always a bug of the engine.
//!
//! Invariant: every decision comes from [`dice`], every moment from `tokio::time`; equal seeds give equal traces.
//! A violation panics; the runner makes that the end of the process.

pub mod again;
pub mod appliance_world;
pub mod atlas;
pub mod client;
pub mod device;
pub mod dice;
pub mod fault;
pub mod image;
pub mod ledger;
pub mod life;
pub mod manager;
pub mod medium;
pub mod oracle;
pub mod register;
pub mod run;
pub mod shape;
pub mod stage;
pub mod tag;
pub mod world;

/// What devices write atomically, and what the oracle follows.
pub const SECTOR: u64 = 512;
