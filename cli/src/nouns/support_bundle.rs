//! `ashlar support-bundle`

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ashlar_openapi::client::Call;
use ashlar_openapi::jobs::JobState;
use ashlar_openapi::operations::{CreateSupportBundle, GetSupportBundle};
use clap::Subcommand;
use uuid::Uuid;

use crate::Context;
use crate::failure::Failure;
use crate::find::id;
use crate::progress::wait;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Gather logs, states and configuration, secrets left out, into a gzipped tar archive
    Create {
        /// The file to write; it must not be there
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
    /// Fetch a bundle that was gathered before
    Fetch {
        /// Id of the job that gathered it
        #[arg(value_parser = id)]
        job: Uuid,
        /// The file to write; it must not be there
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Self::Create { output } => {
                if output.exists() {
                    return Err(Failure::file(output, std::io::ErrorKind::AlreadyExists.into()));
                }
                let job = cx
                    .client
                    .call(Call::<CreateSupportBundle>::at(&[]))
                    .await?
                    .body
                    .id;
                let ended = wait(cx, job).await?.body;
                if ended.state != JobState::Succeeded {
                    return Err(Failure::JobEnded(Box::new(ended)));
                }
                fetch(cx, job, &output).await
            }
            Self::Fetch { job, output } => fetch(cx, job, &output).await,
        }
    }
}

/// Writes the bundle; what could not be written whole is taken away.
async fn fetch(cx: &Context, job: Uuid, path: &Path) -> Result<(), Failure> {
    let mut fetched = cx.client.fetch(Call::<GetSupportBundle>::at(&[job])).await?;
    let at = |error| Failure::file(path, error);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at)?;
    let written = async {
        while let Some(piece) = fetched.piece().await? {
            file.write_all(&piece).map_err(at)?;
        }
        file.sync_all().map_err(at)
    };
    if let Err(failure) = written.await {
        // The first failure is the one to tell.
        let _ = fs::remove_file(path);
        return Err(failure);
    }
    cx.out.done(&path.display().to_string())
}
