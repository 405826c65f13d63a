//! Serves the appliance's exports over NBD, connections dealt out to the data threads in turn.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ashlar_engine::export::nbd::listener::{ConnectionSpawner, ConnectionTask};
use ashlar_engine::export::nbd::server::{Server, Settings};
use ashlar_engine::export::nbd::tls::Tls;
use ashlar_engine::runtime::DataPlane;
use ashlar_engine::volume::Volume;

use super::{Engine, EngineError};

/// Deals connections out to the data threads in turn.
struct InTurn {
    plane: Arc<DataPlane>,
    next: Cell<usize>,
}

impl ConnectionSpawner for InTurn {
    fn spawn(&self, task: ConnectionTask) {
        let thread = self.next.get();
        self.next.set((thread + 1) % self.plane.threads());
        self.plane.spawn_on(thread, task);
    }
}

/// The NBD server of an appliance.
pub struct NbdServer {
    server: Arc<Server<Volume>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl NbdServer {
    /// Takes connections on `listener` from now on.
    ///
    /// # Errors
    /// Where the listener cannot be used.
    pub fn begin(engine: &Engine, listener: std::net::TcpListener, tls: Tls) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let settings = Settings {
            tls,
            ..Settings::default()
        };
        let server = Server::new(Arc::clone(&engine.registry), settings);
        let (listening, plane) = (Arc::clone(&server), Arc::clone(&engine.plane));
        engine.plane.spawn_on(0, move || async move {
            let spawner = InTurn {
                plane,
                next: Cell::new(0),
            };
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listening.listen_tcp(listener, &spawner).await,
                Err(error) => tracing::error!(%error, "hosts cannot attach"),
            }
        });
        Ok(Self { server, address })
    }

    /// Ends all connections, and waits for these to complete what they began.
    ///
    /// # Errors
    /// Where the data plane has ended.
    pub async fn stop(&self, engine: &Engine) -> Result<(), EngineError> {
        let server = Arc::clone(&self.server);
        Ok(engine.run(move || async move { server.stop().await }).await?)
    }
}
