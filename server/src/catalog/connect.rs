//! How to get to the catalog's database.
//!
//! Invariants: what the environment says to other clients of Postgres (`PG…`, password files) has no say here. One
//! appliance at a time uses a database: it holds a lock of the session that it keeps open.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool};
use tokio::time::timeout;
use url::Url;

use super::CatalogError;
use crate::postgres::{PORT, ROLE};

/// In the private cluster.
const DATABASE: &str = "ashlar";
/// Every cluster has it.
const MAINTENANCE_DATABASE: &str = "postgres";
/// Of the session's lock: "ashlar" in bytes.
const LOCK: i64 = 0x6173_686c_6172;
const MAX_CONNECTIONS: u32 = 8;
/// How long a request waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is tried before it is used: Postgres may have gone since. It takes longer to come
/// back after a crash; so one in constant use costs no round trip more.
const FRESH: Duration = Duration::from_millis(50);
/// For every connection: one whose other end is gone is noticed, also by the server, so that its lock is freed.
const KEEP_ALIVE: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];
/// For those of the pool: nothing waits for long.
const LIMITS: [(&str, &str); 3] = [
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "30s"),
];

/// Where the catalog is.
#[derive(Clone)]
pub enum Source {
    /// In the private cluster: the folder of its socket.
    Private(PathBuf),
    /// In a database given: `postgres://user:password@host:port/database?sslmode=…`.
    Url(String),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Private(sockets) => f.debug_tuple("Private").field(sockets).finish(),
            // It has a password.
            Self::Url(_) => f.write_str("Url(…)"),
        }
    }
}

impl Source {
    /// # Errors
    /// Where the URL does not say all that is needed, or the environment says what cannot be overruled.
    pub(super) fn options(&self) -> Result<PgConnectOptions, CatalogError> {
        let own = match self {
            Self::Private(sockets) => PgConnectOptions::new_without_pgpass()
                .host("localhost")
                .socket(sockets)
                .port(PORT)
                .username(ROLE)
                .password("")
                .database(DATABASE)
                .ssl_mode(PgSslMode::Disable),
            Self::Url(url) => from_url(url)?,
        };
        // There is no way to unset it.
        refuse_environment("PGOPTIONS")?;
        Ok(own
            .application_name("ashlar")
            .statement_cache_capacity(200)
            .extra_float_digits(3)
            .options(KEEP_ALIVE))
    }
}

pub(super) fn pool(options: &PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .before_acquire(|connection, of| {
            Box::pin(async move {
                if of.idle_for > FRESH {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options.clone().options(LIMITS))
}

/// The connection that the keeper has to itself, with the lock. Makes the database in the private cluster.
///
/// # Errors
/// Where Postgres is not there, or another appliance has the lock.
pub(super) async fn session(
    source: &Source,
    options: &PgConnectOptions,
) -> Result<PgConnection, CatalogError> {
    if matches!(source, Source::Private(_)) {
        ensure_database(options).await?;
    }
    let mut connection = connect(options).await?;
    let locked = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "locked!""#, LOCK)
        .fetch_one(&mut connection)
        .await?;
    match locked {
        true => Ok(connection),
        false => Err(CatalogError::Unusable(format!(
            "another appliance has the database {} at {} in use: give each a database of its own",
            options.get_database().unwrap_or_default(),
            options.get_host(),
        ))),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    timeout(CONNECT, options.connect()).await.unwrap_or_else(|_late| {
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "Postgres does not answer").into())
    })
}

/// Looks before anybody asks for it: Postgres logs as an error that it is not there.
async fn ensure_database(options: &PgConnectOptions) -> Result<(), CatalogError> {
    let mut connection = connect(&options.clone().database(MAINTENANCE_DATABASE)).await?;
    let found = sqlx::query_scalar!(
        r#"select exists (select from pg_database where datname = $1) as "found!""#,
        DATABASE
    );
    if !found.fetch_one(&mut connection).await? {
        sqlx::query!("create database ashlar")
            .execute(&mut connection)
            .await?;
    }
    Ok(())
}

/// What a URL says, and for what it does not say, values of our own in place of the environment's.
fn from_url(text: &str) -> Result<PgConnectOptions, CatalogError> {
    let unusable = |what: &str| CatalogError::Unusable(format!("its URL {what}"));
    let url = Url::parse(text).map_err(|error| unusable(&format!("cannot be read: {error}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(unusable("does not begin with postgres://"));
    }
    let says = |names: &[&str]| url.query_pairs().any(|(name, _)| names.contains(&&*name));
    if url.host_str().is_none_or(str::is_empty) && !says(&["host", "hostaddr"]) {
        return Err(unusable("names no host"));
    }
    if url.username().is_empty() && !says(&["user"]) {
        return Err(unusable("names no user"));
    }
    if url.path().trim_start_matches('/').is_empty() && !says(&["dbname"]) {
        return Err(unusable("names no database"));
    }
    for (variable, names) in [
        (
            "PGSSLROOTCERT",
            ["sslrootcert", "ssl-root-cert", "ssl-ca"].as_slice(),
        ),
        ("PGSSLCERT", &["sslcert", "ssl-cert"]),
        ("PGSSLKEY", &["sslkey", "ssl-key"]),
    ] {
        if !says(names) {
            refuse_environment(variable)?;
        }
    }
    let mut options = PgConnectOptions::from_str(text)?;
    if url.port().is_none() && !says(&["port"]) {
        options = options.port(PORT);
    }
    if url.password().is_none() && !says(&["password"]) {
        options = options.password("");
    }
    if !says(&["sslmode", "ssl-mode"]) {
        options = options.ssl_mode(PgSslMode::Prefer);
    }
    Ok(options)
}

fn refuse_environment(variable: &str) -> Result<(), CatalogError> {
    match std::env::var_os(variable) {
        None => Ok(()),
        Some(_) => Err(CatalogError::Unusable(format!(
            "the environment variable {variable} would change how it is reached: unset it, and say it in the URL"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        from_url(url).unwrap_err().to_string()
    }

    #[test]
    fn a_url_that_leaves_something_to_the_environment_is_refused() {
        assert!(refusal("postgres://ashlar@/catalog").contains("host"));
        assert!(refusal("postgres://db.example/catalog").contains("no user"));
        assert!(refusal("postgres://ashlar@db.example").contains("no database"));
        assert!(refusal("mysql://ashlar@db.example/catalog").contains("postgres://"));
    }

    #[test]
    fn what_a_url_says_is_taken_and_the_rest_is_ours() {
        let options = from_url("postgres://ashlar@db.example/catalog").unwrap();
        assert_eq!(options.get_host(), "db.example");
        assert_eq!(options.get_port(), 5432);
        assert_eq!(options.get_username(), "ashlar");
        assert_eq!(options.get_database(), Some("catalog"));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::Prefer));
        let options =
            from_url("postgres://u@localhost:6543/x?host=/run/pg&dbname=y&sslmode=verify-full").unwrap();
        assert_eq!(options.get_socket().unwrap(), std::path::Path::new("/run/pg"));
        assert_eq!((options.get_port(), options.get_database()), (6543, Some("y")));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyFull));
    }

    #[test]
    fn a_password_is_not_shown() {
        let source = Source::Url("postgres://u:geheim@db/x".into());
        assert!(!format!("{source:?}").contains("geheim"));
    }
}
