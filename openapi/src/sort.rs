//! Orders of lists: a closed list of words for each, and `-` before a word for the other way round.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// What a list can be sorted by.
pub trait SortKey: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// Each with its word.
    const ALL: &'static [(Self, &'static str)];
    /// Every word, and each with `-` before it.
    const WORDS: &'static [&'static str];
}

/// Declares keys with their words.
macro_rules! sort_keys {
    ($(#[doc = $doc:literal] $name:ident { $($key:ident = $word:literal),* $(,)? })*) => {
        $(
            #[doc = $doc]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $name {
                $($key,)*
            }

            impl SortKey for $name {
                const ALL: &'static [(Self, &'static str)] = &[$((Self::$key, $word)),*];
                const WORDS: &'static [&'static str] = &[$($word, concat!("-", $word)),*];
            }
        )*
    };
}

sort_keys! {
    /// Of devices, RAID groups and volumes.
    NumberedKey { Number = "number", Name = "name", Capacity = "capacity_bytes", CreatedAt = "created_at" }
    /// Of what has a name and no number.
    NamedKey { Name = "name", CreatedAt = "created_at" }
    /// Of what only has a time.
    TimedKey { CreatedAt = "created_at" }
}

/// An order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort<K> {
    pub key: K,
    /// The largest first, or the newest.
    pub descending: bool,
}

/// Of devices, RAID groups and volumes.
pub type NumberedSort = Sort<NumberedKey>;
/// Of what has a name and no number.
pub type NamedSort = Sort<NamedKey>;
/// Of what only has a time.
pub type TimedSort = Sort<TimedKey>;

impl<K> Sort<K> {
    pub fn ascending(key: K) -> Self {
        Self {
            key,
            descending: false,
        }
    }

    pub fn descending(key: K) -> Self {
        Self {
            key,
            descending: true,
        }
    }
}

impl<K: SortKey> Sort<K> {
    /// How it is written.
    pub fn word(self) -> &'static str {
        let place = K::ALL.iter().position(|(key, _)| *key == self.key);
        K::WORDS[2 * place.unwrap_or(0) + usize::from(self.descending)]
    }
}

impl<K: SortKey> Serialize for Sort<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de, K: SortKey> Deserialize<'de> for Sort<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        let (name, descending) = match word.strip_prefix('-') {
            Some(name) => (name, true),
            None => (&*word, false),
        };
        let found = K::ALL.iter().find(|(_, known)| *known == name);
        match found {
            Some(&(key, _)) => Ok(Self { key, descending }),
            None => Err(D::Error::unknown_variant(&word, K::WORDS)),
        }
    }
}

impl<K: SortKey> PartialSchema for Sort<K> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .description(Some(
                "What the list is sorted by; `-` before it: the other way round",
            ))
            .enum_values(Some(K::WORDS.iter().copied()))
            .into()
    }
}

impl<K: SortKey> ToSchema for Sort<K> {
    fn name() -> Cow<'static, str> {
        "Sort".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_written_as_it_is_read_and_no_other_word_is_one() {
        for word in NumberedKey::WORDS {
            let order: Sort<NumberedKey> = serde_json::from_value((*word).into()).unwrap();
            assert_eq!((order.word(), order.descending), (*word, word.starts_with('-')));
        }
        assert_eq!(Sort::descending(NamedKey::CreatedAt).word(), "-created_at");
        for wrong in ["", "-", "--name", "+name", "Name", "number", "capacity"] {
            assert!(
                serde_json::from_value::<Sort<NamedKey>>(wrong.into()).is_err(),
                "{wrong}"
            );
        }
    }
}
