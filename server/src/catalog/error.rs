//! Why the catalog did not do what it was asked. The one place that knows Postgres' own codes.

use sqlx::migrate::MigrateError;

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Nothing can be read or written now; later it can. Where it comes from a commit, the change may have been made.
    #[error("the catalog is not available: {0}")]
    Unavailable(String),
    /// The tables refuse such a state. Names are those of the migrations.
    #[error("the catalog's constraint {name} is violated")]
    Constraint { name: String },
    #[error("the catalog has no such row")]
    NotFound,
    /// Not a place in this listing.
    #[error("the cursor does not belong to this listing")]
    Cursor,
    /// The database cannot be used as it is given.
    #[error("the database cannot be used: {0}")]
    Unusable(String),
    #[error("the catalog failed: {0}")]
    Other(String),
}

/// Classes and codes of conditions that pass, or that the keeper mends.
const PASSING: [&str; 13] = [
    "08",    // connection
    "25006", // read only: a standby
    "25P03", // idle in a transaction for too long
    "28",    // not let in
    "3D",    // no such database
    "3F",    // no such schema
    "40",    // rolled back for another transaction's sake
    "42P01", // no such table: emptied
    "53",    // out of connections, memory, disk
    "55",    // not in the right state, lock not to be had
    "57",    // shutting down, cancelled by the statement timeout
    "58",    // the operating system's errors
    "0A000", // a cached plan of tables that were made anew
];

impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match error {
            E::Database(refusal) => {
                if let Some(name) = refusal.constraint() {
                    return Self::Constraint {
                        name: name.to_owned(),
                    };
                }
                let code = refusal.code().unwrap_or_default();
                match PASSING.iter().any(|passing| code.starts_with(passing)) {
                    true => Self::Unavailable(refusal.message().to_owned()),
                    false => Self::Other(refusal.to_string()),
                }
            }
            E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Self::Unavailable(error.to_string())
            }
            E::RowNotFound => Self::NotFound,
            E::Configuration(why) => Self::Unusable(why.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<MigrateError> for CatalogError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            MigrateError::VersionMissing(version) => Self::Unusable(format!(
                "it was made by a newer version, whose migration {version} is not known here"
            )),
            other => Self::Unusable(other.to_string()),
        }
    }
}

/// Whether Postgres could not read a value.
pub(super) fn is_malformed(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|refusal| refusal.code());
    code.is_some_and(|code| code.starts_with("22"))
}

/// Whether Postgres says just this.
pub(super) fn has_code(error: &sqlx::Error, wanted: &str) -> bool {
    let code = error.as_database_error().and_then(|refusal| refusal.code());
    code.is_some_and(|code| code == wanted)
}
