//! Answers made from the OpenAPI document: what an appliance could say.

use ashlar_openapi::document::BASE;
use ashlar_openapi::operation::Description;
use ashlar_openapi::operations::ALL;
use serde_json::{Map, Value, json};

/// The id of everything.
pub(crate) const ID: &str = "00000000-0000-4000-8000-000000000007";

/// The operation that a request asks for.
pub(crate) fn operation(method: &str, path: &str) -> &'static Description {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<_> = path.strip_prefix(BASE).unwrap().split('/').collect();
    let fits = |known: &Description| {
        let wanted: Vec<_> = known.path.split('/').collect();
        let same = |(wanted, part): (&&str, &&str)| wanted == part || wanted.starts_with('{') && *part == ID;
        known.method.as_str() == method && wanted.len() == parts.len() && wanted.iter().zip(&parts).all(same)
    };
    ALL.iter()
        .find(|known| fits(known))
        .unwrap_or_else(|| panic!("{method} {path} is no operation"))
}

/// An answer of an operation; empty where it says nothing.
pub(crate) fn answer(described: &Description) -> String {
    let document: Value = serde_json::from_str(include_str!("../../../openapi/openapi.json")).unwrap();
    match (described.answer)() {
        Some(name) => of(&document, &document["components"]["schemas"][name]).to_string(),
        None => String::new(),
    }
}

fn of(document: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return of(document, document.pointer(&reference[1..]).unwrap());
    }
    if let Some(one) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        return of(document, one.iter().find(|one| one["type"] != "null").unwrap());
    }
    if let Some(words) = schema["enum"].as_array() {
        // A job has ended.
        return words
            .iter()
            .find(|word| **word == "succeeded")
            .unwrap_or(&words[0])
            .clone();
    }
    let kind = schema["type"].as_str().or_else(|| {
        let kinds = schema["type"].as_array()?;
        kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
    });
    match kind {
        Some("object") => object(document, schema),
        Some("array") => json!([of(document, &schema["items"])]),
        Some("integer") => schema["minimum"].as_u64().unwrap_or(0).max(1).into(),
        Some("boolean") => true.into(),
        Some("string") => match schema["format"].as_str() {
            Some("uuid") => ID.into(),
            Some("date-time") => "2026-01-01T00:00:00Z".into(),
            _ => "a".into(),
        },
        other => panic!("no sample of {other:?}: {schema}"),
    }
}

fn object(document: &Value, schema: &Value) -> Value {
    let mut fields = Map::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let value = match name.as_str() {
            // There is one page.
            "next_cursor" => Value::Null,
            // They are texts to the document, and more to those who read them.
            "address" => "192.0.2.7".into(),
            _ => of(document, field),
        };
        fields.insert(name.clone(), value);
    }
    Value::Object(fields)
}
