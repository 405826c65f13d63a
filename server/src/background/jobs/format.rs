//! Formatting: the free logical devices of a RAID group are made blank, piece by piece, from its first address on. How far
//! it came is an address, so that a restart goes on there; whatever stands in use is passed over.

use std::time::Duration;

use ashlar_engine::appliance::VerbError;
use ashlar_engine::types::GroupId;

use super::work::{Cancelled, Outcome, Progress, Work};
use crate::app::refusals::of_verb;

/// Bytes that are made blank at a time: no space is given out, and no other change is made, so long.
const PIECE: u64 = 16 << 20;
/// How often a group that does not serve is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Formats to the group's end.
///
/// # Errors
/// Where the job is cancelled.
pub async fn run(work: &mut Work) -> Result<Outcome, Cancelled> {
    let group = GroupId(work.job.subject_id);
    let total = work.job.bytes_total.and_then(|total| u64::try_from(total).ok());
    let mut at = u64::try_from(work.job.bytes_done).unwrap_or(0);
    loop {
        work.allowed().await?;
        let engine = &work.app.engine;
        let made = engine
            .with(async move |appliance| appliance.format_free(group, at, PIECE).await)
            .await;
        let waiting_for = match made {
            Ok(Ok(Some(range))) => {
                at = range.end();
                None
            }
            Ok(Ok(None)) => break,
            Ok(Err(VerbError::GroupWaits(_))) => Some("members of the RAID group".to_owned()),
            Ok(Err(error)) => return Ok(Outcome::Failed(of_verb(&error))),
            Err(error) => Some(error.to_string()),
        };
        let waits = waiting_for.is_some();
        work.progress(Progress {
            done: at,
            total,
            waiting_for,
        })
        .await;
        if waits {
            work.control_changed(LOOK).await;
        } else {
            work.within_limits(PIECE).await?;
        }
    }
    work.last_progress(Progress {
        done: total.unwrap_or(at),
        total,
        waiting_for: None,
    })
    .await;
    Ok(Outcome::Succeeded(None))
}
