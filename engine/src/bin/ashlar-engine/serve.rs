//! `ashlar-engine serve`.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::appliance::{Appliance, OpenOptions};
use ashlar_engine::export::nbd::listener::{ConnectionSpawner, ConnectionTask, bind_unix};
use ashlar_engine::export::nbd::server::{Server, Settings};
use ashlar_engine::export::nbd::tls::{self, Tls};
use ashlar_engine::export::{Export, Polling, Registry};
use ashlar_engine::runtime::DataPlane;
use ashlar_engine::types::IdSource;
use ashlar_engine::volume::Volume;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::Failure;
use crate::folder;

/// How long running requests may take at the end.
const GRACE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// The folder of the appliance.
    #[arg(long)]
    dir: PathBuf,
    /// Serve over TCP at HOST:PORT; port 0 picks one.
    #[arg(long)]
    listen: Option<String>,
    /// Serve on a Unix socket.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Certificate chain (PEM): clients may then use TLS.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authority (PEM) that clients' certificates must come from.
    #[arg(long, requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// A new attachment ends the old one.
    #[arg(long)]
    exclusive: bool,
    /// Microseconds that a busy connection polls before it sleeps, 0 for never. Without it, connections poll whose
    /// client sends its next request right after each reply.
    #[arg(long)]
    poll_us: Option<u64>,
    /// Data threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Start as if this device (counted from 0) were absent.
    #[arg(long)]
    without: Vec<usize>,
    /// Start groups although absent members may know better, or newer metadata is damaged.
    #[arg(long)]
    force: bool,
}

/// Deals connections out to the data threads in turn.
struct InTurn {
    plane: Arc<DataPlane>,
    next: std::cell::Cell<usize>,
}

impl ConnectionSpawner for InTurn {
    fn spawn(&self, task: ConnectionTask) {
        let thread = self.next.get();
        self.next.set((thread + 1) % self.plane.threads());
        self.plane.spawn_on(thread, task);
    }
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let plane = Arc::new(DataPlane::start(self.threads)?);
        let stop = Arc::new(Notify::new());
        let served = {
            let (plane, stop) = (Arc::clone(&plane), Arc::clone(&stop));
            Arc::clone(&plane).run_on(0, move || async move {
                self.serve(plane, &stop)
                    .await
                    .map_err(|failure| failure.to_string())
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let served = runtime.block_on(async {
            let asked = until_asked()?;
            let served = std::pin::pin!(served);
            match futures_util::future::select(served, std::pin::pin!(asked)).await {
                futures_util::future::Either::Left((served, _)) => Ok::<_, Failure>(served),
                futures_util::future::Either::Right(((), served)) => {
                    stop.notify_one();
                    Ok(served.await)
                }
            }
        })?;
        if let Ok(plane) = Arc::try_unwrap(plane) {
            plane.stop(GRACE);
        }
        Ok(served??)
    }

    async fn serve(self, plane: Arc<DataPlane>, stop: &Notify) -> Result<(), Failure> {
        let sources = folder::read(&self.dir)?;
        let mut devices = Vec::new();
        for (index, source) in sources
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.without.contains(index))
        {
            match source.open(&self.dir, None).await {
                Ok(device) => devices.push(device),
                Err(error) => tracing::warn!(device = index, %error, "a device cannot be opened"),
            }
        }
        let options = OpenOptions {
            force: self.force,
            ..OpenOptions::default()
        };
        let appliance = Appliance::open(devices, &options, IdSource::from_system()).await?;
        let registry = Arc::new(Registry::default());
        let names = self.offer(&appliance, &registry).await?;
        if names.is_empty() {
            return Err("no volume can be served".into());
        }
        let settings = Settings {
            tls: self.tls()?,
            ..Settings::default()
        };
        let server = Server::new(registry, settings);
        let spawner = InTurn {
            plane,
            next: std::cell::Cell::new(0),
        };
        let mut listeners: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        let mut uris = Vec::new();
        if let Some(address) = &self.listen {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| format!("{address}: {error}"))?;
            let address = listener.local_addr()?;
            uris.extend(names.iter().map(|name| format!("nbd://{address}/{name}")));
            listeners.push(Box::pin(Arc::clone(&server).listen_tcp(listener, &spawner)));
        }
        if let Some(path) = &self.socket {
            let listener = bind_unix(path).map_err(|error| format!("{}: {error}", path.display()))?;
            uris.extend(
                names
                    .iter()
                    .map(|name| format!("nbd+unix:///{name}?socket={}", path.display())),
            );
            listeners.push(Box::pin(Arc::clone(&server).listen_unix(listener, &spawner)));
        }
        println!("ashlar-engine ready: {}", uris.join(" "));
        let listening = futures_util::future::join_all(listeners);
        let ending = async {
            stop.notified().await;
            server.stop().await;
        };
        futures_util::future::join(listening, ending).await;
        appliance.stop().await;
        if let Some(path) = &self.socket {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Puts every serving volume into the registry; says which are not.
    async fn offer(
        &self,
        appliance: &Appliance,
        registry: &Registry<Volume>,
    ) -> Result<Vec<String>, Failure> {
        let mut names = Vec::new();
        for status in appliance.volume_statuses().await {
            let Some(volume) = appliance.volume(status.record.number) else {
                tracing::warn!(
                    volume = status.record.name,
                    "not served: a RAID group of it waits"
                );
                continue;
            };
            let mut export = Export::new(status.record.name.clone(), volume);
            export.exclusive = self.exclusive;
            export.polling = match self.poll_us {
                None => Polling::WhenQuick,
                Some(0) => Polling::Never,
                Some(micros) => Polling::For(Duration::from_micros(micros)),
            };
            registry.add(export)?;
            names.push(status.record.name);
        }
        for group in appliance.group_statuses().await {
            if let Some(waiting) = group.waiting {
                eprintln!("RAID group {} waits: {}", group.record.number, waiting.why);
            }
        }
        Ok(names)
    }

    fn tls(&self) -> Result<Tls, Failure> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(Tls::Off);
        };
        let authority = self.tls_ca.as_ref().map(std::fs::read).transpose()?;
        let config = tls::server_config(
            &std::fs::read(certificate)?,
            &std::fs::read(key)?,
            authority.as_deref(),
        )?;
        Ok(Tls::Required(config))
    }
}

/// Resolves at the first SIGTERM or SIGINT.
fn until_asked() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let (terminate, interrupt) = (std::pin::pin!(terminate.recv()), std::pin::pin!(interrupt.recv()));
        futures_util::future::select(terminate, interrupt).await;
    })
}
