//! `ashlar serve`: what an appliance is started with.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use ashlar_server::log_ring::LogRing;
use ashlar_server::serve::{Settings, serve};
use clap::Args;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::connect::USUAL_DATA;
use crate::failure::Failure;

/// Everything but the data folder, which every command knows.
#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// Serve the API and the page here; port 0 picks one
    #[arg(
        long,
        env = "ASHLAR_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8443"
    )]
    listen: String,
    /// Serve hosts here; port 0 picks one
    #[arg(
        long,
        env = "ASHLAR_NBD_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:10809"
    )]
    nbd_listen: String,
    /// Keep the catalog in this database, and not in a Postgres of the appliance's own
    #[arg(long, env = "ASHLAR_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// Serve the API without TLS: passwords and tokens can be read on the way
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    http: bool,
    /// Certificate chain (PEM) for the API; one of its own is made where none is given
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Folder of Postgres' programs [default: where Debian has the newest]
    #[arg(long, value_name = "DIR", conflicts_with = "database_url")]
    postgres_bin: Option<PathBuf>,
    /// Certificate chain (PEM) for hosts; as for the API where none is given
    #[arg(long, value_name = "FILE", requires = "nbd_tls_key")]
    nbd_tls_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "nbd_tls_cert")]
    nbd_tls_key: Option<PathBuf>,
    /// Authority (PEM) that the certificates of hosts must come from
    #[arg(long, value_name = "FILE")]
    nbd_tls_ca: Option<PathBuf>,
    /// Data threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
}

impl Serve {
    /// Serves until it is told to stop. What happens goes to standard error, and that it serves to standard output.
    pub(crate) fn run(self, data: Option<PathBuf>) -> Result<(), Failure> {
        let ring = LogRing::default();
        let wanted = std::env::var("ASHLAR_LOG");
        let filter = EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            // Each start has Postgres say that what is there already is there.
            .parse_lossy(wanted.as_deref().unwrap_or("sqlx::postgres::notice=warn"));
        let said = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        tracing_subscriber::registry()
            .with(filter)
            .with(said)
            .with(ring.clone())
            .init();
        serve(&self.settings(data, ring)).map_err(|error| Failure::Serve(error.into()))
    }

    fn settings(self, data: Option<PathBuf>, log: LogRing) -> Settings {
        Settings {
            data: data.unwrap_or_else(|| PathBuf::from(USUAL_DATA)),
            listen: self.listen,
            nbd_listen: self.nbd_listen,
            database_url: self.database_url,
            postgres_bin: self.postgres_bin,
            certificate: self.tls_cert.zip(self.tls_key),
            nbd_certificate: self.nbd_tls_cert.zip(self.nbd_tls_key),
            nbd_client_authority: self.nbd_tls_ca,
            plain_http: self.http,
            data_threads: self.threads.into(),
            log,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::{Cli, Command};

    fn serve(line: &str) -> Result<super::Serve, clap::Error> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Serve(serve) => Ok(serve),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_appliance_listens_on_this_machine_only_unless_it_is_told_otherwise() {
        let settings = serve("ashlar serve")
            .unwrap()
            .settings(None, super::LogRing::default());
        assert_eq!(
            (settings.listen.as_str(), settings.nbd_listen.as_str()),
            ("127.0.0.1:8443", "127.0.0.1:10809")
        );
        assert_eq!((settings.data, settings.plain_http), ("data".into(), false));
    }

    #[test]
    fn certificates_come_with_their_keys_and_never_without_tls() {
        assert!(serve("ashlar serve --tls-cert c --tls-key k").is_ok());
        for wrong in [
            "--tls-cert c",
            "--tls-key k",
            "--http --tls-cert c --tls-key k",
            "--postgres-bin p --database-url u",
        ] {
            assert!(serve(&format!("ashlar serve {wrong}")).is_err(), "{wrong}");
        }
    }
}
