//! What an operation is: a type that names path, method, who may ask, what it takes and what it answers.

use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use crate::access::{Roles, Scope};

/// HTTP methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// What an operation has in common with others, each handled in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trait {
    /// Takes `Idempotency-Key`.
    Idempotent,
    /// Needs `If-Match`.
    IfMatch,
    /// Answers carry `ETag`.
    Tagged,
    /// A list: takes `limit` and `cursor`; its query has `sort` where there is more than one order.
    Paged,
    /// Makes a job: takes `wait`.
    Waits,
    /// Takes `dry_run`.
    DryRun,
    /// Answered before anybody has a catalog: needs only the process.
    WithoutCatalog,
    /// Answers something else than JSON; see its description.
    Raw,
}

/// Neither query nor body nor answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl IntoParams for Nothing {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Vec::new()
    }
}

/// What stands in a body or an answer: a schema by name, or nothing.
pub trait Content: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The schema's name in the document.
    fn schema_name() -> Option<String>;
    /// The schema and all that it refers to.
    fn collect(schemas: &mut Vec<(String, RefOr<Schema>)>);
}

impl Content for Nothing {
    fn schema_name() -> Option<String> {
        None
    }

    fn collect(_: &mut Vec<(String, RefOr<Schema>)>) {}
}

/// Makes types the content of bodies and answers.
macro_rules! content {
    ($($type:ty),* $(,)?) => {
        $(impl $crate::operation::Content for $type {
            fn schema_name() -> Option<String> {
                Some(<$type as utoipa::ToSchema>::name().into_owned())
            }

            fn collect(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
                $crate::operation::collect_schema::<$type>(schemas);
            }
        })*
    };
}
pub(crate) use content;

/// The schema of `T` and of everything in it.
pub(crate) fn collect_schema<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// Something that can be asked of an appliance.
pub trait Operation: Send + Sync + 'static {
    /// What it takes in the query, beside what its traits bring.
    type Query: Serialize + DeserializeOwned + IntoParams + Default + Send + Sync + 'static;
    type Body: Content;
    type Answer: Content;

    const ID: &'static str;
    const METHOD: Method;
    /// Below `/api/v1`; identifiers in braces.
    const PATH: &'static str;
    const TAG: &'static str;
    const ROLES: Roles;
    const SCOPE: Scope;
    /// Status of an answer that is no problem.
    const STATUS: u16;
    const TRAITS: &'static [Trait];
    /// First sentence: the summary.
    const DOC: &'static [&'static str];

    fn has(what: Trait) -> bool {
        Self::TRAITS.contains(&what)
    }
}

/// An operation as data.
#[derive(Debug, Clone)]
pub struct Description {
    pub id: &'static str,
    pub method: Method,
    pub path: &'static str,
    pub tag: &'static str,
    pub roles: Roles,
    pub scope: Scope,
    pub status: u16,
    pub traits: &'static [Trait],
    pub doc: &'static [&'static str],
    pub query: fn() -> Vec<Parameter>,
    pub body: fn() -> Option<String>,
    pub answer: fn() -> Option<String>,
    pub collect: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Description {
    pub const fn of<O: Operation>() -> Self {
        Self {
            id: O::ID,
            method: O::METHOD,
            path: O::PATH,
            tag: O::TAG,
            roles: O::ROLES,
            scope: O::SCOPE,
            status: O::STATUS,
            traits: O::TRAITS,
            doc: O::DOC,
            query: || O::Query::into_params(|| Some(ParameterIn::Query)),
            body: O::Body::schema_name,
            answer: O::Answer::schema_name,
            collect: |schemas| {
                O::Body::collect(schemas);
                O::Answer::collect(schemas);
            },
        }
    }

    pub fn has(&self, what: Trait) -> bool {
        self.traits.contains(&what)
    }

    /// Whether it changes anything.
    pub fn mutates(&self) -> bool {
        self.method != Method::Get
    }
}

/// Declares operations: `/// doc` `Name = METHOD "path" "operationId" tag roles scope status, query Q, body B, answers A, [traits]`.
macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $name:ident = $method:ident $path:literal $id:literal $tag:literal
        $roles:ident $scope:ident $status:literal ($query:ty, $body:ty) -> $answer:ty $([$($trait:ident),*])?;)*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl $crate::operation::Operation for $name {
                type Query = $query;
                type Body = $body;
                type Answer = $answer;

                const ID: &'static str = $id;
                const METHOD: $crate::operation::Method = $crate::operation::Method::$method;
                const PATH: &'static str = $path;
                const TAG: &'static str = $tag;
                const ROLES: $crate::access::Roles = $crate::access::Roles::$roles;
                const SCOPE: $crate::access::Scope = $crate::access::Scope::$scope;
                const STATUS: u16 = $status;
                const TRAITS: &'static [$crate::operation::Trait] = &[$($($crate::operation::Trait::$trait),*)?];
                const DOC: &'static [&'static str] = &[$($doc),+];
            }
        )*

        /// Every operation there is.
        pub const ALL: &[$crate::operation::Description] = &[$($crate::operation::Description::of::<$name>()),*];
    };
}
pub(crate) use operations;
