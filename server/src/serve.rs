//! The appliance process from start to end.
//!
//! ```text
//!   data folder → certificate → sockets → Postgres, engine → catalog → API, hosts → ready
//!   asked to stop → API → hosts → background → engine → catalog → Postgres
//! ```
//! Invariants: hosts are served as soon as the engine is open, whatever the catalog does. Nothing is left running where
//! a start fails.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::export::nbd::tls::Tls;
use ashlar_openapi::appliance::CatalogKind;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api;
use crate::app::{App, Parts, reconcile};
use crate::auth::sessions::{KeysError, Sessions};
use crate::background::{self, Background};
use crate::catalog::{Catalog, CatalogError, CatalogState, Keeper, Source};
use crate::certificate::{self, Certificate, CertificateError, Origin};
use crate::data_dir::{DataDir, DataDirError};
use crate::engine::serve::NbdServer;
use crate::engine::{BeginError, Engine};
use crate::files::FileError;
use crate::listen::{Sockets, bind_maintenance};
use crate::log_ring::LogRing;
use crate::postgres::{Cluster, PostgresError, Running};
use crate::stand_back::stand_back;

/// How long the start waits for the catalog before it serves without.
const CATALOG_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to bring changes to their end.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Name of the maintenance socket in the data folder.
pub const SOCKET: &str = "ashlar.sock";

/// What an appliance is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data: PathBuf,
    /// `HOST:PORT` of the API; port 0 picks one.
    pub listen: String,
    /// `HOST:PORT` for hosts; port 0 picks one.
    pub nbd_listen: String,
    /// A database for the catalog; without one the appliance runs its own Postgres.
    pub database_url: Option<String>,
    /// Folder of Postgres' programs.
    pub postgres_bin: Option<PathBuf>,
    /// Certificate and key in PEM; without them the appliance has its own.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The same for hosts; as for the API where none is given.
    pub nbd_certificate: Option<(PathBuf, PathBuf)>,
    /// Authority in PEM that hosts' certificates must come from.
    pub nbd_client_authority: Option<PathBuf>,
    /// HTTP without TLS, where it was asked for by name.
    pub plain_http: bool,
    pub data_threads: usize,
    /// Keeps the newest lines of the log.
    pub log: LogRing,
}

/// Why the appliance did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Engine(#[from] BeginError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("signals cannot be waited for: {0}")]
    Signals(std::io::Error),
    #[error("the control plane cannot be started: {0}")]
    Runtime(std::io::Error),
}

/// Runs an appliance until it is asked to stop.
///
/// # Errors
/// Why it did not start.
pub fn serve(settings: &Settings) -> Result<(), ServeError> {
    // Whoever installed one before has installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let data_dir = DataDir::open(&settings.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("control")
        .on_thread_start(stand_back)
        .build()
        .map_err(ServeError::Runtime)?;
    let served = runtime.block_on(run(settings, &data_dir));
    // What is still blocked on a dead server must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Everything that listens, bound before anything is started.
struct Bound {
    api: TcpListener,
    api_address: SocketAddr,
    nbd: std::net::TcpListener,
    nbd_address: SocketAddr,
    maintenance: tokio::net::UnixListener,
}

async fn bind(settings: &Settings, data_dir: &DataDir) -> Result<Bound, ServeError> {
    let failed = |address: &str| {
        let address = address.to_owned();
        move |source| ServeError::Listen { address, source }
    };
    let api = TcpListener::bind(&settings.listen)
        .await
        .map_err(failed(&settings.listen))?;
    let nbd = std::net::TcpListener::bind(&settings.nbd_listen).map_err(failed(&settings.nbd_listen))?;
    let socket = data_dir.path().join(SOCKET);
    let shown = socket.display().to_string();
    Ok(Bound {
        api_address: api.local_addr().map_err(failed(&settings.listen))?,
        nbd_address: nbd.local_addr().map_err(failed(&settings.nbd_listen))?,
        maintenance: bind_maintenance(&socket).map_err(failed(&shown))?,
        api,
        nbd,
    })
}

fn load_certificate(settings: &Settings, data_dir: &DataDir) -> Result<Certificate, ServeError> {
    let origin = match &settings.certificate {
        Some((certificate, key)) => Origin::Given {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        None => {
            let folder = data_dir.path().join("tls");
            std::fs::create_dir_all(&folder).map_err(|source| FileError::Os {
                path: folder.display().to_string(),
                source,
            })?;
            let host = settings.listen.rsplit_once(':').map_or("", |(host, _)| host);
            Origin::Own {
                folder,
                hosts: vec![host.trim_matches(['[', ']']).to_owned()],
            }
        }
    };
    Ok(certificate::load(&origin)?)
}

/// What hosts that ask for TLS are shown.
fn nbd_tls(settings: &Settings, certificate: &Certificate) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let authority = settings.nbd_client_authority.as_deref();
    match &settings.nbd_certificate {
        None => Ok(certificate::for_hosts(certificate, authority)?),
        Some((chain, key)) => {
            let given = certificate::load(&Origin::Given {
                certificate: chain.clone(),
                key: key.clone(),
            })?;
            Ok(certificate::for_hosts(&given, authority)?)
        }
    }
}

/// A Postgres of the appliance's own, where no database was given.
fn start_postgres(settings: &Settings, data_dir: &DataDir) -> Result<Option<Running>, ServeError> {
    if settings.database_url.is_some() {
        return Ok(None);
    }
    let cluster = Cluster::prepare(data_dir.path(), settings.postgres_bin.as_deref())?;
    Ok(Some(Running::start(cluster)?))
}

async fn run(settings: &Settings, data_dir: &DataDir) -> Result<(), ServeError> {
    let mut asked = Asked::listen()?;
    let certificate = load_certificate(settings, data_dir)?;
    let hosts_tls = nbd_tls(settings, &certificate)?;
    let bound = bind(settings, data_dir).await?;
    let postgres = start_postgres(settings, data_dir)?;
    let source = match (&settings.database_url, &postgres) {
        (Some(url), _) => Source::Url(url.clone()),
        (None, Some(running)) => Source::Private(running.cluster().socket_folder().to_owned()),
        (None, None) => unreachable!("without a database a private one was started"),
    };
    let (catalog, keeper) = Catalog::open(source)?;
    let engine = Engine::begin(data_dir.path(), settings.data_threads).await?;
    let app = Arc::new(App::new(Parts {
        catalog,
        catalog_kind: match settings.database_url {
            Some(_) => CatalogKind::External,
            None => CatalogKind::Private,
        },
        engine,
        sessions: Sessions::open(data_dir.path().join("keys.json"))?,
        nbd_uri: format!("nbd://{}", bound.nbd_address),
        limit_path: data_dir.path().join("rate-limit.json"),
        data_dir: data_dir.path().to_owned(),
        support_folder: data_dir.path().join("support"),
        log: settings.log.clone(),
    })?);
    let running = Appliance::begin(settings, app, keeper, bound, certificate.config, hosts_tls)?;
    running.until_ready(&mut asked).await;
    asked.wait().await;
    tracing::info!("stopping");
    running.stop().await;
    let _ = std::fs::remove_file(data_dir.path().join(SOCKET));
    if let Some(postgres) = postgres {
        // Waits for its end.
        let stopped = tokio::task::spawn_blocking(move || postgres.stop()).await;
        if stopped.is_err() {
            tracing::error!("the private Postgres was not stopped in order");
        }
    }
    Ok(())
}

/// Everything that runs.
struct Appliance {
    app: Arc<App>,
    nbd: NbdServer,
    stop: watch::Sender<bool>,
    api: tokio::task::JoinHandle<()>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    background: Background,
    /// What a crash had cut off was brought to its end.
    recovered: watch::Receiver<bool>,
    ready_line: String,
}

impl Appliance {
    fn begin(
        settings: &Settings,
        app: Arc<App>,
        keeper: Keeper,
        bound: Bound,
        api_tls: Arc<rustls::ServerConfig>,
        hosts_tls: Arc<rustls::ServerConfig>,
    ) -> Result<Self, ServeError> {
        let begun = NbdServer::begin(&app.engine, bound.nbd, Tls::Offered(hosts_tls));
        let nbd = begun.map_err(|source| ServeError::Listen {
            address: bound.nbd_address.to_string(),
            source,
        })?;
        let stop = watch::Sender::new(false);
        let keeping = {
            let app = Arc::clone(&app);
            tokio::spawn(
                keeper.run(move |catalog, found| reconcile::reconcile(Arc::clone(&app), catalog, found)),
            )
        };
        let rolled = watch::Sender::new(false);
        let recovered = rolled.subscribe();
        let rolling = tokio::spawn(roll_forward(Arc::clone(&app), rolled));
        let sockets = Sockets::new(api::router(Arc::clone(&app)), stop.subscribe());
        let acceptor = (!settings.plain_http).then(|| TlsAcceptor::from(api_tls));
        let scheme = if settings.plain_http { "http" } else { "https" };
        let ready_line = format!(
            "ashlar ready: {scheme}://{} nbd://{}",
            bound.api_address, bound.nbd_address
        );
        let api = tokio::spawn(async move {
            let network = sockets.tcp(bound.api, acceptor);
            let maintenance = sockets.maintenance(bound.maintenance);
            tokio::join!(network, maintenance);
        });
        let background = background::start(Arc::clone(&app));
        Ok(Self {
            app,
            background,
            nbd,
            stop,
            api,
            tasks: vec![keeping, rolling],
            recovered,
            ready_line,
        })
    }

    /// Waits for the catalog and what is unfinished there, for a while, and says that the appliance serves.
    async fn until_ready(&self, asked: &mut Asked) {
        let mut recovered = self.recovered.clone();
        let ready = recovered.wait_for(|recovered| *recovered);
        tokio::select! {
            ready = tokio::time::timeout(CATALOG_PATIENCE, ready) => {
                if !matches!(ready, Ok(Ok(_))) {
                    tracing::warn!("the catalog is not there; hosts are served all the same");
                }
            }
            () = asked.wait() => return,
        }
        let mut out = std::io::stdout().lock();
        // Whoever started the appliance may not be reading.
        let _ = writeln!(out, "{}", self.ready_line).and_then(|()| out.flush());
    }

    async fn stop(self) {
        // Streams of events would hold up the end of their connections.
        self.app.stopping.send_replace(true);
        self.stop.send_replace(true);
        if self.api.await.is_err() {
            tracing::error!("the API ended by a mistake");
        }
        if let Err(error) = self.nbd.stop(&self.app.engine).await {
            tracing::error!(%error, "hosts were cut off");
        }
        background::stop(self.background).await;
        for task in self.tasks {
            task.abort();
        }
        self.app.engine.stop().await;
        self.app.catalog.close().await;
    }
}

/// Brings unfinished changes to their end, and says when it first has: each time that the catalog is there again, that a
/// request leaves one, and after a pause as long as some are left.
async fn roll_forward(app: Arc<App>, rolled: watch::Sender<bool>) {
    let mut state = app.catalog.state();
    let mut pause = SHORTEST_PAUSE;
    while state
        .wait_for(|state| *state == CatalogState::Ready)
        .await
        .is_ok()
    {
        let are_left = match app.roll_forward().await {
            Ok(left) => {
                rolled.send_replace(true);
                left > 0
            }
            Err(problem) => {
                tracing::warn!(%problem, "unfinished changes wait");
                true
            }
        };
        tokio::select! {
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                pause = SHORTEST_PAUSE;
            }
            () = app.left_unfinished.notified() => pause = SHORTEST_PAUSE,
            () = tokio::time::sleep(pause), if are_left => pause = (2 * pause).min(LONGEST_PAUSE),
        }
    }
}

/// The signals that ask for the end.
struct Asked {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    was: bool,
}

impl Asked {
    fn listen() -> Result<Self, ServeError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(ServeError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(ServeError::Signals)?,
            was: false,
        })
    }

    /// Returns when somebody asked.
    async fn wait(&mut self) {
        if self.was {
            return;
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.was = true;
    }
}
