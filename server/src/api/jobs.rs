//! Jobs.

use ashlar_openapi::Operation;
use ashlar_openapi::Problem;
use ashlar_openapi::operations::{CancelJob, ChangeJob, GetJob, ListJobs, PauseJob, ResumeJob};
use ashlar_openapi::sort::{Sort, TimedKey};

use super::incoming::Incoming;
use super::{Asked, Routes};
use crate::app::jobs::verbs::Verb;
use crate::app::{Answer, order, reading};
use crate::catalog::jobs;

pub fn routes(routes: Routes) -> Routes {
    routes
        .on::<ListJobs, _>(list)
        .on::<GetJob, _>(get)
        .on::<ChangeJob, _>(change)
        .on::<PauseJob, _>(pause)
        .on::<ResumeJob, _>(resume)
        .on::<CancelJob, _>(cancel)
}

async fn list(asked: Asked, incoming: Incoming<ListJobs>) -> Result<Answer, Problem> {
    let filter = jobs::JobFilter {
        kind: incoming.query.kind.map(|kind| kind.as_str().to_owned()),
        state: incoming.query.state.and_then(|state| state.as_str().parse().ok()),
        subject_kind: None,
        subject_id: incoming.query.subject,
    };
    let order = incoming
        .query
        .sort
        .unwrap_or(Sort::descending(TimedKey::CreatedAt));
    let part = order::part(&incoming.paging.wanted(), order)?;
    let found = reading(&asked.app.catalog, async |connection| {
        jobs::page(connection, &filter, &part).await
    })
    .await?;
    let items = found.rows.iter().map(|row| asked.app.job_view(row)).collect();
    Ok(Answer::of::<ListJobs>(&order::page(
        items,
        order,
        found.next.as_ref(),
    )))
}

async fn get(asked: Asked, incoming: Incoming<GetJob>) -> Result<Answer, Problem> {
    let row = match incoming.wait {
        Some(wait) => asked.app.job_within(incoming.id(), wait).await?,
        None => asked.app.job(incoming.id()).await?,
    };
    Ok(asked.app.job_answer(&row))
}

async fn change(asked: Asked, incoming: Incoming<ChangeJob>) -> Result<Answer, Problem> {
    let (id, if_match) = (incoming.id(), incoming.if_match.as_deref());
    asked
        .app
        .change_job(&asked.caller, id, incoming.body, if_match)
        .await
}

async fn verb<O: Operation>(asked: Asked, incoming: Incoming<O>, verb: Verb) -> Result<Answer, Problem> {
    let if_match = incoming.if_match.as_deref();
    asked
        .app
        .job_verb(&asked.caller, incoming.id(), verb, None, if_match)
        .await
}

async fn pause(asked: Asked, incoming: Incoming<PauseJob>) -> Result<Answer, Problem> {
    verb(asked, incoming, Verb::Pause).await
}

async fn resume(asked: Asked, incoming: Incoming<ResumeJob>) -> Result<Answer, Problem> {
    verb(asked, incoming, Verb::Resume).await
}

async fn cancel(asked: Asked, incoming: Incoming<CancelJob>) -> Result<Answer, Problem> {
    verb(asked, incoming, Verb::Cancel).await
}
