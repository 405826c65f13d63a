//! A request, taken apart by its operation: path, query, headers, body. Whatever is wrong with one of them is a problem
//! of its own that names the place.

use std::collections::BTreeMap;
use std::time::Duration;

use ashlar_openapi::document::{LONGEST_KEY, LONGEST_WAIT_S, MOST_ITEMS, USUAL_ITEMS, path_parameters};
use ashlar_openapi::{Operation, Problem, ProblemType, Trait};
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, header};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::decode::{self, Decoded};
use crate::app::look_up::Wanted;

/// What a page is asked for.
#[derive(Debug, Clone)]
pub struct Paging {
    pub limit: u32,
    pub cursor: Option<String>,
}

impl Paging {
    /// For lists that the engine gives.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted {
            limit: self.limit,
            cursor: self.cursor.as_deref(),
        }
    }
}

/// A request as an operation understands it.
#[derive(Debug)]
pub struct Incoming<O: Operation> {
    /// In the order of the path's braces.
    pub ids: Vec<Uuid>,
    pub query: O::Query,
    pub body: O::Body,
    pub paging: Paging,
    pub wait: Option<Duration>,
    pub dry_run: bool,
    /// `*` stands for whatever there is.
    pub if_match: Option<String>,
    pub idempotency_key: Option<String>,
    pub last_event_id: Option<u64>,
    pub wants_event_stream: bool,
}

impl<O: Operation> Incoming<O> {
    /// The only id of the path.
    pub fn id(&self) -> Uuid {
        self.ids[0]
    }

    /// # Errors
    /// What is wrong with the request.
    pub fn parse(
        path: &BTreeMap<String, String>,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Self, Problem> {
        let ids = path_parameters(O::PATH)
            .map(|name| parse_id(name, path.get(name).map_or("", String::as_str)))
            .collect::<Result<_, _>>()?;
        let mut given = query_pairs(query.unwrap_or_default())?;
        let mut take = |what: Trait, name: &str| if O::has(what) { given.remove(name) } else { None };
        let paging = Paging {
            limit: take(Trait::Paged, "limit").map_or(Ok(USUAL_ITEMS), |text| parse_limit(&text))?,
            cursor: take(Trait::Paged, "cursor"),
        };
        let wait = take(Trait::Waits, "wait")
            .map(|text| parse_wait(&text))
            .transpose()?;
        let dry_run =
            take(Trait::DryRun, "dry_run").map_or(Ok(false), |text| parse_flag("dry_run", &text))?;
        let last_event_id = header_text(headers, &HeaderName::from_static("last-event-id"))?
            .map(|text| {
                text.parse()
                    .map_err(|_| bad_header("Last-Event-ID", "the number of an event"))
            })
            .transpose()?;
        let accepted = header_text(headers, &header::ACCEPT)?.unwrap_or("*/*");
        if !O::has(Trait::Raw) {
            check_accepted(accepted)?;
        }
        Ok(Self {
            ids,
            query: parse_query(&given)?,
            body: parse_body::<O>(headers, body)?,
            paging,
            wait,
            dry_run,
            if_match: parse_if_match::<O>(headers)?,
            idempotency_key: parse_key::<O>(headers)?,
            last_event_id,
            wants_event_stream: accepted.contains("text/event-stream"),
        })
    }
}

fn parse_id(name: &str, text: &str) -> Result<Uuid, Problem> {
    // Other spellings of a UUID would be other paths to the same object.
    Uuid::try_parse(text)
        .ok()
        .filter(|_| text.len() == 36)
        .ok_or_else(|| {
            Problem::new(
                ProblemType::InvalidParameter,
                format!("{text:?} in the path is no UUID"),
                "give the object's id; lists find it by number or name",
            )
            .at(name)
        })
}

fn bad_parameter(name: &str, cause: impl Into<String>, correction: impl Into<String>) -> Problem {
    Problem::new(ProblemType::InvalidParameter, cause, correction).at(name)
}

fn bad_header(name: &str, wanted: &str) -> Problem {
    Problem::new(
        ProblemType::InvalidHeader,
        format!("header {name} has a value that it cannot have"),
        format!("it takes {wanted}"),
    )
    .at(name)
}

/// Whether an answer in JSON, or a stream of events where there is one, can be given.
fn check_accepted(accepted: &str) -> Result<(), Problem> {
    const GIVEN: [&str; 5] = [
        "*/*",
        "application/*",
        "application/json",
        "application/problem+json",
        "text/event-stream",
    ];
    let named = |range: &str| {
        range
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    };
    if accepted.is_empty()
        || accepted
            .split(',')
            .any(|range| GIVEN.contains(&named(range).as_str()))
    {
        return Ok(());
    }
    Err(Problem::new(
        ProblemType::NotAcceptable,
        format!("the client accepts {accepted:?} only"),
        "accept application/json",
    )
    .at("Accept"))
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .map_err(|_| bad_header(name.as_str(), "visible ASCII characters"))?;
    Ok(Some(text.trim()))
}

fn query_pairs(query: &str) -> Result<BTreeMap<String, String>, Problem> {
    let malformed = |_| {
        bad_parameter(
            "",
            "the query is not well-formed",
            "write it as name=value&name=value",
        )
    };
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(malformed)?;
    let mut given = BTreeMap::new();
    for (name, value) in pairs {
        if value.contains('\0') {
            return Err(bad_parameter(
                &name,
                "the value has a NUL character",
                "leave it out",
            ));
        }
        if given.insert(name.clone(), value).is_some() {
            let cause = format!("parameter {name:?} is given twice");
            return Err(bad_parameter(&name, cause, "give it once"));
        }
    }
    Ok(given)
}

fn parse_limit(text: &str) -> Result<u32, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=MOST_ITEMS).contains(limit));
    limit.ok_or_else(|| {
        let correction = format!("it takes an integer from 1 to {MOST_ITEMS}");
        bad_parameter("limit", format!("limit {text:?} is none"), correction)
    })
}

fn parse_wait(text: &str) -> Result<Duration, Problem> {
    let seconds = text.strip_suffix('s').and_then(|text| text.parse::<u32>().ok());
    let seconds = seconds.filter(|seconds| *seconds <= LONGEST_WAIT_S);
    seconds
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| {
            let correction = format!("it takes seconds up to {LONGEST_WAIT_S}s, like 30s");
            bad_parameter("wait", format!("{text:?} is no time to wait"), correction)
        })
}

fn parse_flag(name: &str, text: &str) -> Result<bool, Problem> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad_parameter(
            name,
            format!("{text:?} is neither true nor false"),
            "give true or false",
        )),
    }
}

fn parse_query<Q: DeserializeOwned>(given: &BTreeMap<String, String>) -> Result<Q, Problem> {
    let text = serde_urlencoded::to_string(given).unwrap_or_default();
    let deserializer = serde_urlencoded::Deserializer::new(url_pairs(&text));
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let place = error.path().to_string();
        match decode::unknown_field(&error.inner().to_string()) {
            Some((unknown, known)) => Problem::new(
                ProblemType::UnknownParameter,
                format!("there is no parameter {unknown:?} here"),
                "leave it out, or use one of those that there are",
            )
            .at(unknown)
            .allowing(known),
            None => bad_parameter(&place, error.inner().to_string(), "see the OpenAPI document"),
        }
    })
}

fn url_pairs(text: &str) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(text.as_bytes())
}

/// The problem of a body where there is none to be.
pub fn takes_no_body() -> Problem {
    Problem::new(
        ProblemType::UnknownField,
        "this operation takes no body",
        "leave the body out",
    )
}

fn parse_body<O: Operation>(headers: &HeaderMap, body: &Bytes) -> Result<O::Body, Problem> {
    use ashlar_openapi::operation::Content as _;
    if O::Body::schema_name().is_none() {
        if !body.is_empty() && body.iter().any(|byte| !byte.is_ascii_whitespace()) && body.as_ref() != b"{}" {
            return Err(takes_no_body());
        }
        return serde_json::from_str("{}").map_err(|error| decode::malformed(&error));
    }
    let kind = header_text(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            ProblemType::UnsupportedMediaType,
            format!("the body's type is {essence:?}"),
            "send JSON with Content-Type: application/json",
        )
        .at("Content-Type"));
    }
    match decode::json(body) {
        Decoded::Value(value) => Ok(value),
        Decoded::Problem(problem) => Err(*problem),
    }
}

fn parse_if_match<O: Operation>(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let given = header_text(headers, &header::IF_MATCH)?;
    if !O::has(Trait::IfMatch) {
        return Ok(given.map(str::to_owned));
    }
    match given {
        None => Err(Problem::new(
            ProblemType::PreconditionRequired,
            "the edit does not say which state of the object it is meant for",
            "read the object, and send its ETag as If-Match",
        )
        .at("If-Match")),
        Some("") => Err(bad_header("If-Match", "an ETag in quotation marks")),
        Some(tag) => Ok(Some(tag.to_owned())),
    }
}

fn parse_key<O: Operation>(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if !O::has(Trait::Idempotent) {
        return Ok(None);
    }
    let Some(key) = header_text(headers, &HeaderName::from_static("idempotency-key"))? else {
        return Ok(None);
    };
    let good = !key.is_empty() && key.len() <= LONGEST_KEY && key.bytes().all(|byte| byte.is_ascii_graphic());
    if good {
        Ok(Some(key.to_owned()))
    } else {
        Err(bad_header("Idempotency-Key", "1 to 128 visible ASCII characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_openapi::operations::{ChangeVolume, CreateExport, CreateVolume, ListVolumes};

    fn query<O: Operation>(text: &str) -> Result<Incoming<O>, ProblemType> {
        let parsed = Incoming::parse(&BTreeMap::new(), Some(text), &HeaderMap::new(), &Bytes::new());
        parsed.map_err(|problem| problem.kind)
    }

    #[test]
    fn what_a_list_does_not_know_is_refused_by_name() {
        let found = query::<ListVolumes>("number=3&limit=7&cursor=x").unwrap();
        assert_eq!(
            (found.query.number, found.paging.limit),
            (Some(ashlar_openapi::Natural(3)), 7)
        );
        assert_eq!(
            query::<ListVolumes>("colour=red").err(),
            Some(ProblemType::UnknownParameter)
        );
        assert_eq!(
            query::<ListVolumes>("dry_run=true").err(),
            Some(ProblemType::UnknownParameter)
        );
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=ten",
            "number=-1",
            "number=1&number=2",
            "presence=there",
        ] {
            assert_eq!(
                query::<ListVolumes>(wrong).err(),
                Some(ProblemType::InvalidParameter),
                "{wrong}"
            );
        }
    }

    fn body<O: Operation>(text: &str, kind: &str) -> Result<Incoming<O>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        Incoming::parse(
            &BTreeMap::new(),
            None,
            &headers,
            &Bytes::copy_from_slice(text.as_bytes()),
        )
    }

    #[test]
    fn what_is_wrong_with_a_body_has_a_type_and_a_place() {
        let cases = [
            ("{", ProblemType::MalformedJson, None),
            ("{}", ProblemType::MissingField, Some("/name")),
            (
                r#"{"name": "a", "colour": 1}"#,
                ProblemType::UnknownField,
                Some("/colour"),
            ),
            (r#"{"name": "a b"}"#, ProblemType::InvalidValue, Some("/name")),
            (
                r#"{"name": "a", "capacity_bytes": -1}"#,
                ProblemType::InvalidValue,
                Some("/capacity_bytes"),
            ),
            (
                r#"{"name": "a", "placements": [{"range": {"offset": 0}, "raid_group": "x"}]}"#,
                ProblemType::InvalidValue,
                Some("/placements/0/range"),
            ),
            (
                r#"{"name": "a", "name": "b"}"#,
                ProblemType::InvalidValue,
                Some("/name"),
            ),
        ];
        for (text, kind, pointer) in cases {
            let problem = body::<CreateVolume>(text, "application/json").unwrap_err();
            assert_eq!(
                (problem.kind, problem.pointer.as_deref()),
                (kind, pointer),
                "{text}: {problem}"
            );
        }
        let problem = body::<CreateVolume>("{}", "text/plain").unwrap_err();
        assert_eq!(problem.kind, ProblemType::UnsupportedMediaType);
    }

    #[test]
    fn a_text_that_the_catalog_cannot_keep_is_refused_with_its_place() {
        let export = |client: &str| {
            let text = format!(
                r#"{{"volume": "{}", "clients": ["::1", "{client}"]}}"#,
                Uuid::nil()
            );
            body::<CreateExport>(&text, "application/json")
        };
        let problem = export(r"a\u0000b").unwrap_err();
        assert_eq!(
            (problem.kind, problem.pointer.as_deref()),
            (ProblemType::InvalidValue, Some("/clients/1"))
        );
        assert!(export(r"a\\u0000b").is_ok(), "a backslash is one");
    }

    #[test]
    fn an_edit_says_which_state_it_is_meant_for() {
        let path = BTreeMap::from([("id".to_owned(), Uuid::nil().to_string())]);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let edit = |headers: &HeaderMap| {
            Incoming::<ChangeVolume>::parse(&path, None, headers, &Bytes::from_static(b"{}"))
        };
        assert_eq!(
            edit(&headers).unwrap_err().kind,
            ProblemType::PreconditionRequired
        );
        headers.insert(header::IF_MATCH, "\"3\"".parse().unwrap());
        assert_eq!(edit(&headers).unwrap().if_match.as_deref(), Some("\"3\""));
    }
}
