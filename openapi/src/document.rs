//! The OpenAPI 3.1 document, made from the table of operations.
//!
//! What operations have in common (paging, preconditions, problems, who may) is written here once, from their traits.

use std::collections::BTreeMap;

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{
    AdditionalProperties, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    Required, Schema,
};

use crate::access::Roles;
use crate::operation::{Description, Method, Trait, collect_schema};
use crate::operations::{self, ListEvents};
use crate::problem::Problem;
use crate::{Operation as _, values};

/// Where the operations stand.
pub const BASE: &str = "/api/v1";
/// Most items of a page.
pub const MOST_ITEMS: u32 = 1000;
/// Items of a page where no limit is given.
pub const USUAL_ITEMS: u32 = 100;
/// Longest that a request waits for a job, in seconds.
pub const LONGEST_WAIT_S: u32 = 120;
/// Longest idempotency key.
pub const LONGEST_KEY: usize = 128;

const ABOUT: &str = "Ashlar turns a Linux server and its disks into a managed block-storage appliance. Errors are \
problem documents (RFC 9457) of one closed list. Requests that make something can be repeated safely: with \
`Idempotency-Key`, or with an `id` chosen by the client. Edits need `If-Match`.";

/// Tags, in the order of the document.
const TAGS: &[(&str, &str)] = &[
    ("appliance", "The appliance itself"),
    ("devices", "Storage devices: disks, files, remote exports"),
    ("raid-groups", "Devices that together carry one RAID level"),
    (
        "logical-devices",
        "Fixed-length slices of RAID groups, the unit of allocation",
    ),
    ("volumes", "What hosts see, laid over RAID groups range by range"),
    ("exports", "Volumes as hosts attach them"),
    ("jobs", "Work that takes long"),
    ("events", "What happened"),
    ("webhooks", "Events sent somewhere"),
    ("users", "Accounts of people"),
    ("tokens", "Credentials of automation"),
    ("auth", "Signing in"),
    ("audit-log", "Who changed what"),
    ("support-bundle", "What to send when asking for help"),
];

/// The document.
pub fn document() -> OpenApi {
    let mut schemas = Vec::new();
    collect_schema::<Problem>(&mut schemas);
    let mut paths = PathsBuilder::new();
    let mut items: Vec<(String, PathItem)> = Vec::new();
    for described in operations::ALL {
        (described.collect)(&mut schemas);
        let path = format!("{BASE}{}", described.path);
        let operation = operation(described);
        match items.iter_mut().find(|(known, _)| *known == path) {
            Some((_, item)) => item.merge_operations(PathItem::new(http_method(described.method), operation)),
            None => items.push((path, PathItem::new(http_method(described.method), operation))),
        }
    }
    for (path, item) in items {
        paths = paths.path(path, item);
    }
    let schemas: BTreeMap<String, RefOr<Schema>> = schemas.into_iter().collect();
    let mut components = ComponentsBuilder::new()
        .schemas_from_iter(schemas.into_iter().map(|(name, schema)| (name, closed(schema))))
        .response("Problem", problem_response());
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An access token of a session, or an API token"))
        .build();
    components = components.security_scheme("bearer", SecurityScheme::Http(bearer));
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Ashlar")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(ABOUT))
                .license(Some(
                    LicenseBuilder::new()
                        .name("Apache-2.0")
                        .identifier(Some("Apache-2.0"))
                        .build(),
                ))
                .build(),
        )
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .tags(Some(TAGS.iter().map(|(name, what)| {
            TagBuilder::new().name(*name).description(Some(*what)).build()
        })))
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

/// The document as it stands in the repository.
pub fn text() -> String {
    let text = document()
        .to_pretty_json()
        .expect("a document is plain data, which always serialises");
    text + "\n"
}

fn http_method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Post => HttpMethod::Post,
        Method::Put => HttpMethod::Put,
        Method::Patch => HttpMethod::Patch,
        Method::Delete => HttpMethod::Delete,
    }
}

/// The variants of a tagged union take no other fields either.
fn closed(schema: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::OneOf(mut union)) = schema else {
        return schema;
    };
    for variant in &mut union.items {
        if let RefOr::T(Schema::Object(object)) = variant {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
    RefOr::T(Schema::OneOf(union))
}

fn operation(described: &Description) -> OperationBuilder {
    let (summary, rest) = described.doc.split_first().expect("the macro demands a sentence");
    let roles: Vec<&str> = described
        .roles
        .allowed()
        .iter()
        .map(|role| role.as_str())
        .collect();
    // One of them only: their order is not kept.
    let mut extensions = Extensions::default();
    extensions.insert("x-roles".to_owned(), roles.into());
    let mut operation = OperationBuilder::new()
        .operation_id(Some(described.id))
        .tag(described.tag)
        .summary(Some(summary.trim().trim_end_matches('.')))
        .description(
            (!rest.is_empty()).then(|| rest.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")),
        )
        .extensions(Some(extensions));
    if described.roles == Roles::Public {
        operation = operation.securities(Some(Vec::<SecurityRequirement>::new()));
    } else {
        operation = operation.security(SecurityRequirement::new("bearer", [described.scope.as_str()]));
    }
    for parameter in parameters(described) {
        operation = operation.parameter(parameter);
    }
    if let Some(name) = (described.body)() {
        let body = RequestBodyBuilder::new()
            .content(
                "application/json",
                ContentBuilder::new().schema(Some(reference(&name))).build(),
            )
            .required(Some(Required::True))
            .build();
        operation = operation.request_body(Some(body));
    }
    operation = operation.response(described.status.to_string(), answer(described));
    let waits = described.status == 202;
    if described.has(Trait::DryRun) && described.status != 200 && !waits {
        operation = operation.response("200", plain(described, "What would happen"));
    }
    if waits {
        let done = match described.has(Trait::DryRun) {
            true => "What would happen, or the job, done within the time waited for",
            false => "The job, done within the time waited for",
        };
        operation = operation.response("200", plain(described, done));
    }
    operation
        .response("4XX", Ref::from_response_name("Problem"))
        .response("5XX", Ref::from_response_name("Problem"))
}

fn reference(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

fn plain(described: &Description, what: &str) -> Response {
    let mut response = ResponseBuilder::new().description(what);
    if let Some(name) = (described.answer)() {
        let content = ContentBuilder::new().schema(Some(reference(&name))).build();
        response = response.content("application/json", content);
    }
    response.build()
}

fn answer(described: &Description) -> Response {
    let what = match described.status {
        201 => "Made",
        202 => "The job that does it",
        204 => "Done",
        _ => "Done, or found",
    };
    let mut response = plain(described, what);
    if described.id == ListEvents::ID {
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .build();
        let stream = ContentBuilder::new().schema(Some(Schema::Object(text))).build();
        response
            .content
            .insert("text/event-stream".to_owned(), stream.into());
    }
    if described.has(Trait::Raw) {
        let kind = if described.path.ends_with(".json") {
            "application/json"
        } else {
            "application/gzip"
        };
        response
            .content
            .insert(kind.to_owned(), ContentBuilder::new().build().into());
    }
    let text = || {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .build()
    };
    if described.has(Trait::Tagged) {
        let header = HeaderBuilder::new()
            .schema(Some(text()))
            .description(Some("Names this state of the object, for `If-Match`"))
            .build();
        response.headers.insert("ETag".to_owned(), header.into());
    }
    if matches!(described.status, 201 | 202) {
        let header = HeaderBuilder::new()
            .schema(Some(text()))
            .description(Some("Path of what was made"))
            .build();
        response.headers.insert("Location".to_owned(), header.into());
    }
    response
}

fn problem_response() -> Response {
    let content = ContentBuilder::new().schema(Some(reference("Problem"))).build();
    ResponseBuilder::new()
        .description("A problem, of the closed list")
        .content("application/problem+json", content)
        .build()
}

fn text_parameter(name: &str, place: ParameterIn, what: &str, schema: ObjectBuilder) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(Schema::Object(schema.build())))
}

fn parameters(described: &Description) -> Vec<Parameter> {
    let string = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    let integer = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
    let mut found = Vec::new();
    for name in path_parameters(described.path) {
        let uuid = string().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
        let parameter = text_parameter(name, ParameterIn::Path, "Id", uuid).required(Required::True);
        found.push(parameter.build());
    }
    found.extend((described.query)());
    if described.has(Trait::Paged) {
        let limit = integer()
            .minimum(Some(1))
            .maximum(Some(MOST_ITEMS))
            .default(Some(USUAL_ITEMS.into()));
        let what = "Most items of the page";
        found.push(text_parameter("limit", ParameterIn::Query, what, limit).build());
        let cursor = string().max_length(Some(512));
        let what = "`next_cursor` of the page before";
        found.push(text_parameter("cursor", ParameterIn::Query, what, cursor).build());
    }
    if described.has(Trait::Waits) {
        let wait = string().pattern(Some("^([0-9]|[1-9][0-9]|1[01][0-9]|120)s$"));
        let what = "Answer when the job has ended, or after this time: up to `120s`";
        found.push(text_parameter("wait", ParameterIn::Query, what, wait).build());
    }
    if described.has(Trait::DryRun) {
        let dry_run = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Boolean));
        let what = "Answer what would happen, and do nothing";
        found.push(text_parameter("dry_run", ParameterIn::Query, what, dry_run).build());
    }
    if described.has(Trait::Idempotent) {
        let key = string()
            .min_length(Some(1))
            .max_length(Some(LONGEST_KEY))
            .pattern(Some("^[!-~]+$"));
        let what =
            "Chosen by the client: the same request with the same key is carried out once and answered alike";
        found.push(text_parameter("Idempotency-Key", ParameterIn::Header, what, key).build());
    }
    if described.has(Trait::IfMatch) {
        let what = "`ETag` of the object as it was read";
        // Required by the contract; whoever leaves it out gets a problem of its own.
        let parameter = text_parameter("If-Match", ParameterIn::Header, what, string());
        found.push(parameter.required(Required::True).build());
    }
    if described.id == ListEvents::ID {
        let number = integer().minimum(Some(0)).maximum(Some(values::MOST));
        let what = "Number of the last event seen";
        found.push(text_parameter("Last-Event-ID", ParameterIn::Header, what, number).build());
    }
    found
}

/// Names in braces.
pub fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_in_the_repository_is_the_one_made_from_the_contract() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let stands = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stands == text(),
            "openapi.json is out of date: `make openapi` writes it"
        );
    }

    #[test]
    fn operations_have_ids_and_places_of_their_own_and_known_tags() {
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for described in operations::ALL {
            assert!(ids.insert(described.id), "{} twice", described.id);
            assert!(
                places.insert((described.path, described.method)),
                "{} twice",
                described.path
            );
            assert!(
                TAGS.iter().any(|(tag, _)| *tag == described.tag),
                "{}",
                described.tag
            );
            let edits = described.method == Method::Patch;
            assert_eq!(described.has(Trait::IfMatch), edits, "{}", described.id);
            let reads = described.method == Method::Get;
            assert!(!(reads && described.has(Trait::Idempotent)), "{}", described.id);
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = serde_json::to_value(document()).unwrap();
        let mut wanted = Vec::new();
        references(&document, &mut wanted);
        assert!(!wanted.is_empty());
        for reference in wanted {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn the_words_of_the_document_are_those_that_are_said() {
        let document = serde_json::to_value(document()).unwrap();
        let words = |name: &str| document["components"]["schemas"][name]["enum"].clone();
        assert_eq!(
            words("ProblemType"),
            serde_json::to_value(crate::ProblemType::ALL).unwrap()
        );
        assert_eq!(
            words("Scope"),
            serde_json::to_value(crate::access::Scope::ALL).unwrap()
        );
    }

    fn references(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                Some(text) if key == "$ref" => found.push(text.to_owned()),
                _ => references(value, found),
            }),
            serde_json::Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
}
