//! Runs a private Postgres in a data folder until its standard input ends: for tests that kill it.

use std::io::Read as _;
use std::path::PathBuf;

use ashlar_server::data_dir::DataDir;
use ashlar_server::postgres::{Cluster, Running, State};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("a data folder is to be named")?);
    let data_dir = DataDir::open(&folder)?;
    let running = Running::start(Cluster::prepare(data_dir.path(), None)?)?;
    let mut state = running.state();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(state.wait_for(|state| *state == State::Ready))?;
    println!("ready {}", running.cluster().socket_folder().display());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    running.stop();
    Ok(())
}
