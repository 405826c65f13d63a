//! JSON bodies to values, and what is wrong with one as a problem that names the place.

use ashlar_openapi::{Problem, ProblemType};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// A value, or why there is none.
pub enum Decoded<T> {
    Value(T),
    Problem(Box<Problem>),
}

/// The value that a body holds.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Decoded<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(value) => value,
        Err(error) => return Decoded::Problem(Box::new(problem(error.path(), error.inner()))),
    };
    if let Err(error) = deserializer.end() {
        return Decoded::Problem(Box::new(malformed(&error)));
    }
    match nul(body) {
        None => Decoded::Value(value),
        Some(at) => {
            let cause = "the text has the character NUL, which the catalog cannot keep";
            let problem = Problem::new(ProblemType::InvalidValue, cause, "leave the character out");
            Decoded::Problem(Box::new(problem.at(at)))
        }
    }
}

/// Where a body that is JSON has a text with the character NUL, as a JSON pointer.
fn nul(body: &[u8]) -> Option<String> {
    // Nearly no body is looked at twice.
    let escape = br"\u0000";
    if !body.windows(escape.len()).any(|window| window == escape) {
        return None;
    }
    nul_in(&serde_json::from_slice(body).ok()?)
}

fn nul_in(value: &Value) -> Option<String> {
    let below = |at: &str, value: &Value| nul_in(value).map(|rest| format!("/{at}{rest}"));
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| below(&index.to_string(), item))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, field)| below(name, field)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// The problem of a body that is not JSON.
pub fn malformed(error: &serde_json::Error) -> Problem {
    let cause = format!(
        "the body is not JSON at line {}, column {}",
        error.line(),
        error.column()
    );
    Problem::new(ProblemType::MalformedJson, cause, "send one JSON object")
}

fn problem(path: &Path, error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return malformed(error);
    }
    let (at, said) = (pointer(path), without_place(&error.to_string()));
    if let Some((unknown, known)) = unknown_field(&said) {
        // The path leads to the field already where its value was looked at, and to the object around it else.
        let at = if at.ends_with(&format!("/{unknown}")) {
            at
        } else {
            format!("{at}/{unknown}")
        };
        let correction = "leave it out, or use one of those that there are";
        return Problem::new(
            ProblemType::UnknownField,
            format!("there is no field {unknown:?} here"),
            correction,
        )
        .at(at)
        .allowing(known);
    }
    if let Some(missing) = quoted_after(&said, "missing field ") {
        let cause = format!("field {missing:?} is missing");
        return Problem::new(ProblemType::MissingField, cause, "add it").at(format!("{at}/{missing}"));
    }
    if let Some(twice) = quoted_after(&said, "duplicate field ") {
        let at = if at.ends_with(&format!("/{twice}")) {
            at
        } else {
            format!("{at}/{twice}")
        };
        return Problem::new(
            ProblemType::InvalidValue,
            format!("field {twice:?} is given twice"),
            "give it once",
        )
        .at(at);
    }
    let wanted = said
        .split_once(", expected ")
        .map_or_else(|| said.clone(), |(_, wanted)| format!("it takes {wanted}"));
    Problem::new(ProblemType::InvalidValue, said, wanted).at(at)
}

/// JSON pointer (RFC 6901) of a path.
fn pointer(path: &Path) -> String {
    let mut out = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => out += &format!("/{index}"),
            Segment::Map { key } => out += &format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    out
}

fn without_place(said: &str) -> String {
    said.split(" at line ").next().unwrap_or(said).to_owned()
}

/// The field that is not known, and those that are, from serde's message.
pub fn unknown_field(said: &str) -> Option<(String, Vec<String>)> {
    let unknown = quoted_after(said, "unknown field ")?;
    let known = said.split_once("expected").map_or("", |(_, known)| known);
    let known = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((unknown, known))
}

fn quoted_after(said: &str, before: &str) -> Option<String> {
    let rest = said.strip_prefix(before)?.strip_prefix('`')?;
    // The name itself may hold one.
    let end = rest
        .find("`, expected")
        .or_else(|| rest.find("`, there are"))
        .or_else(|| rest.rfind('`'))?;
    Some(rest[..end].to_owned())
}
