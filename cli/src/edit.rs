//! Edits: an object is read first, and changed only as it was read.
//!
//! An edit that comes too late is made once more, where none of the fields that it changes has changed meanwhile.

use ashlar_openapi::client::{Answer, Call, Client, ClientError};
use ashlar_openapi::operation::Nothing;
use ashlar_openapi::{Operation, ProblemType};
use serde_json::Value;
use uuid::Uuid;

use crate::failure::Failure;

/// Reads with `G` and changes with `C`.
pub(crate) async fn edit<G, C>(client: &Client, path: &[Uuid], change: C::Body) -> Result<Answer<C>, Failure>
where
    G: Operation<Body = Nothing>,
    C: Operation<Body: Clone>,
{
    let fields = fields(&change);
    if fields.is_empty() {
        return Err(Failure::usage("say what to change"));
    }
    let before = client.call(Call::<G>::at(path)).await?;
    let stale = match client
        .call(Call::<C>::with(path, change.clone()).if_match(before.etag))
        .await
    {
        Err(ClientError::Problem(problem)) if problem.kind == ProblemType::Stale => problem,
        outcome => return Ok(outcome?),
    };
    let now = client.call(Call::<G>::at(path)).await?;
    if !same(&fields, &before.text, &now.text) {
        return Err(ClientError::Problem(stale).into());
    }
    Ok(client
        .call(Call::<C>::with(path, change).if_match(now.etag))
        .await?)
}

/// The fields that an edit changes.
fn fields(change: &impl serde::Serialize) -> Vec<String> {
    match serde_json::to_value(change) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// Whether two states of an object agree in these fields.
fn same(fields: &[String], one: &str, other: &str) -> bool {
    let read = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (one, other) = (read(one), read(other));
    fields.iter().all(|field| one.get(field) == other.get(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_openapi::devices::DeviceChange;

    #[test]
    fn only_the_fields_that_are_edited_must_be_as_they_were() {
        let fields = fields(&DeviceChange { name: Some(None) });
        assert_eq!(fields, ["name"]);
        assert!(same(
            &fields,
            r#"{"name": "a", "state": "x"}"#,
            r#"{"name": "a", "state": "y"}"#
        ));
        assert!(!same(&fields, r#"{"name": "a"}"#, r#"{"name": null}"#));
    }

    #[test]
    fn an_edit_of_nothing_has_no_fields() {
        assert!(fields(&DeviceChange::default()).is_empty());
    }
}
