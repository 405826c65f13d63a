//! The audit log.

use ashlar_openapi::Problem;
use ashlar_openapi::operations::ListAuditLog;

use super::incoming::Incoming;
use super::{Asked, Routes};
use crate::app::Answer;

pub fn routes(routes: Routes) -> Routes {
    routes.on::<ListAuditLog, _>(list)
}

async fn list(asked: Asked, incoming: Incoming<ListAuditLog>) -> Result<Answer, Problem> {
    let cursor = incoming.paging.cursor.as_deref();
    asked
        .app
        .audit_log(incoming.query, incoming.paging.limit, cursor)
        .await
}
