//! Values that many resources share. Each refuses what it can never be, and says so in the document.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The largest integer that every JSON reader keeps exactly.
pub const MOST: u64 = (1 << 53) - 1;
/// Longest name of an object, in characters.
pub const LONGEST_NAME: usize = 64;
/// What a name looks like.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

/// A moment in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(
    #[serde(
        serialize_with = "time::serde::rfc3339::serialize",
        deserialize_with = "in_utc"
    )]
    pub time::OffsetDateTime,
);

/// The same moment without an offset. There are moments that can be written with one only.
fn in_utc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<time::OffsetDateTime, D::Error> {
    let given = time::serde::rfc3339::deserialize(deserializer)?;
    given
        .checked_to_offset(time::UtcOffset::UTC)
        .filter(|at| (0..=9999).contains(&at.year()))
        .ok_or_else(|| de::Error::custom("a moment outside of the years 0 to 9999 in UTC"))
}

/// An integer from 0 to `most`; whole numbers written with a fraction of zero are integers in JSON Schema too.
struct WholeNumber {
    most: u64,
}

impl Visitor<'_> for WholeNumber {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an integer from 0 to {}", self.most)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        if value <= self.most {
            Ok(value)
        } else {
            Err(E::invalid_value(de::Unexpected::Unsigned(value), &self))
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<u64, E> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "at most 2^53 - 1, which a double holds exactly"
        )]
        let within = value >= 0.0 && value <= self.most as f64 && value.fract() == 0.0;
        if !within {
            return Err(E::invalid_value(de::Unexpected::Float(value), &self));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and within bounds"
        )]
        Ok(value as u64)
    }
}

fn integer_schema(format: KnownFormat, most: u64, what: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(format)))
        .minimum(Some(0))
        .maximum(Some(most))
        .description(Some(what))
        .into()
}

/// The schema of a closed list of words, of which each variant is one. The derived schema does not see names that a
/// macro gives to variants.
macro_rules! words {
    ($name:ident, $words:expr, $what:literal) => {
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::SchemaType::Type(
                        utoipa::openapi::schema::Type::String,
                    ))
                    .description(Some($what))
                    .enum_values(Some($words))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}
pub(crate) use words;

/// A count of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub u64);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeNumber { most: MOST }).map(Self)
    }
}

impl PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        integer_schema(KnownFormat::Int64, MOST, "Bytes")
    }
}

impl ToSchema for Bytes {
    fn name() -> Cow<'static, str> {
        "Bytes".into()
    }
}

/// A small count or a number of an object: 0 to 2³¹ − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Natural(pub u32);

impl Natural {
    const MOST: u64 = (1 << 31) - 1;
}

impl Serialize for Natural {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Natural {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_u64(WholeNumber { most: Self::MOST })?;
        Ok(Self(u32::try_from(value).map_err(de::Error::custom)?))
    }
}

impl PartialSchema for Natural {
    fn schema() -> RefOr<Schema> {
        integer_schema(KnownFormat::Int32, Self::MOST, "A count or a number")
    }
}

impl ToSchema for Natural {
    fn name() -> Cow<'static, str> {
        "Natural".into()
    }
}

/// What people call an object: 1 to 64 letters, digits, `-`, `_` or `.`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name(String);

/// A text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 64 letters, digits, '-', '_' or '.', and begins with a letter or digit")]
pub struct NotAName;

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if begins && text.len() <= LONGEST_NAME && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAName)
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .pattern(Some(NAME_PATTERN))
            .min_length(Some(1))
            .max_length(Some(LONGEST_NAME))
            .description(Some("What people call an object"))
            .into()
    }
}

impl ToSchema for Name {
    fn name() -> Cow<'static, str> {
        "Name".into()
    }
}

/// A range of addresses, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    pub offset: Bytes,
    pub length: Bytes,
}

/// A track of a count-key-data volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Track {
    pub cylinder: Natural,
    pub head: Natural,
}

/// A range of a volume as asked for: in bytes, or on count-key-data volumes from one track to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Extent {
    Bytes(Range),
    Tracks(Tracks),
}

/// From one track to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tracks {
    pub from: Track,
    pub to: Track,
}

impl<'de> Deserialize<'de> for Extent {
    /// By the fields that are there, so that what is wrong with one of them can be said.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Any {
            offset: Option<Bytes>,
            length: Option<Bytes>,
            from: Option<Track>,
            to: Option<Track>,
        }
        let any = Any::deserialize(deserializer)?;
        match (any.offset, any.length, any.from, any.to) {
            (Some(offset), Some(length), None, None) => Ok(Self::Bytes(Range { offset, length })),
            (None, None, Some(from), Some(to)) => Ok(Self::Tracks(Tracks { from, to })),
            _ => Err(de::Error::custom(
                "a range has `offset` and `length`, or `from` and `to`",
            )),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Asks for the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
        ObjectBuilder::new()
            .property("items", Ref::from_schema_name(T::name()).to_array_builder())
            .property(
                "next_cursor",
                text.description(Some("Asks for the next page; `null` on the last one")),
            )
            .required("items")
            .required("next_cursor")
            .description(Some("One page of a list"))
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// A field of an edit that can also be set to nothing: absent (`None`), `null` (`Some(None)`) or a value.
pub fn some<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_str;

    #[test]
    fn moments_are_those_that_can_be_written_in_utc() {
        let read = |text: &str| serde_json::from_value::<Timestamp>(text.into());
        let given = read("2026-01-01T01:00:00+01:00").unwrap();
        assert_eq!(serde_json::to_value(given).unwrap(), "2026-01-01T00:00:00Z");
        assert!(read("9999-12-31T23:59:59Z").is_ok());
        assert!(read("9999-12-31T23:59:59-01:00").is_err());
        assert!(read("0000-01-01T00:00:00+01:00").is_err());
    }

    #[test]
    fn integers_are_taken_where_json_schema_calls_them_integers() {
        assert_eq!(from_str::<Bytes>("34332").unwrap(), Bytes(34332));
        assert_eq!(from_str::<Bytes>("34332.0").unwrap(), Bytes(34332));
        assert_eq!(from_str::<Bytes>(&MOST.to_string()).unwrap(), Bytes(MOST));
        for wrong in ["-1", "0.5", "9007199254740992", "1e300", "\"1\"", "null", "true"] {
            assert!(from_str::<Bytes>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(from_str::<Natural>("7.0").unwrap(), Natural(7));
        assert!(from_str::<Natural>("2147483648").is_err());
    }

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "vol0", "0", "a.b-c_d", &"x".repeat(64)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for wrong in ["", "-a", ".a", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_is_given_in_bytes_or_in_tracks_and_never_in_both() {
        let bytes = from_str::<Extent>(r#"{"offset": 0, "length": 4096}"#).unwrap();
        assert_eq!(
            bytes,
            Extent::Bytes(Range {
                offset: Bytes(0),
                length: Bytes(4096)
            })
        );
        let track = r#"{"cylinder": 1, "head": 2}"#;
        assert!(matches!(
            from_str::<Extent>(&format!(r#"{{"from": {track}, "to": {track}}}"#)).unwrap(),
            Extent::Tracks(_)
        ));
        for wrong in [
            r#"{"offset": 0}"#.to_owned(),
            format!(r#"{{"offset": 0, "length": 1, "from": {track}, "to": {track}}}"#),
            r#"{"offset": 0, "length": 1, "more": 2}"#.to_owned(),
            "{}".to_owned(),
        ] {
            assert!(from_str::<Extent>(&wrong).is_err(), "{wrong}");
        }
    }
}
