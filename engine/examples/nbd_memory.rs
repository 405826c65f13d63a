//! Serves a memory target as export `memory` (and as the default export) over NBD: what the protocol costs alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ashlar_engine::export::nbd::listener::{ConnectionSpawner, ConnectionTask, bind_unix};
use ashlar_engine::export::nbd::server::{Server, Settings};
use ashlar_engine::export::nbd::tls::{Tls, server_config};
use ashlar_engine::export::{Export, Registry};
use clap::Parser;
use tokio::task::LocalSet;

#[path = "../tests/common/memory_target.rs"]
mod memory_target;
use memory_target::MemoryTarget;

#[derive(Parser)]
struct Arguments {
    /// Size in MiB.
    #[arg(long, default_value_t = 256)]
    mib: usize,
    #[arg(long)]
    unix: Option<PathBuf>,
    #[arg(long)]
    tcp: Option<SocketAddr>,
    /// A folder with `server-cert.pem`, `server-key.pem` and `ca-cert.pem` (clients need certificates).
    #[arg(long)]
    tls: Option<PathBuf>,
}

/// All connections on this thread.
struct Here;

impl ConnectionSpawner for Here {
    fn spawn(&self, task: ConnectionTask) {
        tokio::task::spawn_local(task());
    }
}

fn tls(folder: Option<PathBuf>) -> Result<Tls, Box<dyn std::error::Error>> {
    let Some(folder) = folder else { return Ok(Tls::Off) };
    let read = |name| std::fs::read(folder.join(name));
    let config = server_config(
        &read("server-cert.pem")?,
        &read("server-key.pem")?,
        Some(&read("ca-cert.pem")?),
    )?;
    Ok(Tls::Required(config))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let target = Arc::new(MemoryTarget::new(arguments.mib << 20));
    let registry = Arc::new(Registry::default());
    for name in ["memory", ""] {
        registry.add(Export::new(name, Arc::clone(&target)))?;
    }
    let server = Server::new(
        registry,
        Settings {
            tls: tls(arguments.tls)?,
            ..Settings::default()
        },
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        if let Some(path) = arguments.unix {
            let listener = bind_unix(&path)?;
            tokio::task::spawn_local(Arc::clone(&server).listen_unix(listener, &Here));
        }
        if let Some(address) = arguments.tcp {
            let listener = tokio::net::TcpListener::bind(address).await?;
            tokio::task::spawn_local(Arc::clone(&server).listen_tcp(listener, &Here));
        }
        tokio::signal::ctrl_c().await?;
        server.stop().await;
        Ok(())
    })
}
