//! The private Postgres: a cluster of the appliance's own, under its data folder, that lives and dies with it.
//!
//! [`cluster`] makes the folder and its configuration, [`process`] runs the server on it and starts it again after a
//! crash. It listens on a Unix socket only, and only the appliance's user is let in.
//!
//! Invariants: a half-made cluster is never used (it is made aside and renamed). The database server ends with the
//! appliance, also where that is killed.

pub mod binaries;
pub mod cluster;
pub mod process;
pub mod user;

use std::path::PathBuf;

pub use binaries::Binaries;
pub use cluster::Cluster;
pub use process::{PORT, Running, State};

/// The role that owns everything in the cluster.
pub const ROLE: &str = "ashlar";

/// Why there is no private Postgres.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("{}", no_binaries(.given))]
    NoBinaries { given: Option<PathBuf> },
    #[error(
        "the cluster was made by Postgres {wanted}, and only version {found} is installed: install postgresql-{wanted}"
    )]
    OtherVersion { wanted: u32, found: u32 },
    #[error("there is no user with the number {0}, which this process runs as")]
    NoUser(u32),
    #[error(
        "Postgres does not run as root, and there is no user postgres to run it as: make one, or do not run as root"
    )]
    NoUnprivileged,
    #[error(
        "Postgres runs as {user}, who cannot pass through {folder}: `chmod a+x` it, or give a data folder elsewhere"
    )]
    NoWay { user: String, folder: PathBuf },
    #[error("the cluster {folder} is in use by another Postgres (process {pid})")]
    InUse { folder: PathBuf, pid: i32 },
    #[error("{doing} {path}: {source}")]
    Os {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("initdb failed: {said}")]
    Initdb { said: String },
}

fn no_binaries(given: &Option<PathBuf>) -> String {
    match given {
        Some(folder) => format!("there are no programs of Postgres in {}", folder.display()),
        None => "Postgres is not installed: install the package postgresql, or give another database with \
                 --database-url"
            .into(),
    }
}

/// An error of the operating system with what was done to which path.
fn os_error(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> PostgresError {
    let path = path.to_owned();
    move |source| PostgresError::Os { doing, path, source }
}
