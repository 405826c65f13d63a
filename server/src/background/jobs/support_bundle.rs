//! Making support bundles: what is in one is gathered by [`crate::app::support_bundle`].

use std::sync::Arc;

use serde_json::json;

use super::work::{Cancelled, Outcome, Progress, Work};
use crate::app::support_bundle::{archive, keep, parts};

/// Gathers, packs and keeps.
///
/// # Errors
/// Where the job is cancelled.
pub async fn run(work: &mut Work) -> Result<Outcome, Cancelled> {
    let app = Arc::clone(&work.app);
    let audit_log = work.job.params["audit_log"] == true;
    let parts = match parts::gather(&app, audit_log).await {
        Ok(parts) => parts,
        Err(problem) => return Ok(Outcome::Failed(problem)),
    };
    work.allowed().await?;
    let total = parts.iter().map(|part| part.content.len() as u64).sum();
    let (folder, id) = (app.support_folder.clone(), work.job.id);
    let made = tokio::task::spawn_blocking(move || {
        let bytes = archive::write(&folder, id, &parts)?;
        keep::prune(&folder)?;
        Ok::<_, crate::files::FileError>(bytes)
    });
    let bytes = match made.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            return Ok(Outcome::Failed({
                tracing::error!(%error, "a support bundle could not be written");
                crate::app::internal()
            }));
        }
        Err(_) => return Ok(Outcome::Failed(crate::app::internal())),
    };
    if let Err(cancelled) = work.allowed().await {
        keep::remove(&app.support_folder, id);
        return Err(cancelled);
    }
    work.last_progress(Progress {
        done: total,
        total: Some(total),
        waiting_for: None,
    })
    .await;
    Ok(Outcome::Succeeded(Some(json!({"bytes": bytes}))))
}
