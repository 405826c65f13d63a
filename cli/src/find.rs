//! Objects by id, number or name.
//!
//! What has the form of an id is one. Everything else is looked up in the lists; what fits two objects is refused.

use std::pin::pin;

use ashlar_openapi::client::{Call, Client};
use ashlar_openapi::operation::Nothing;
use ashlar_openapi::{Operation, Page};
use futures_util::TryStreamExt as _;
use uuid::Uuid;

use crate::failure::Failure;

/// What objects of a kind can be found by.
pub(crate) struct Handle {
    pub(crate) id: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) number: Option<u32>,
}

impl Handle {
    fn is_meant_by(&self, text: &str) -> bool {
        let by_number = number(text).is_some_and(|number| self.number == Some(number));
        by_number || self.name.as_deref() == Some(text)
    }
}

/// `text` as the number of an object.
pub(crate) fn number(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// A kind of object that people name.
pub(crate) trait Noun {
    const WHAT: &'static str;
    type Item;
    type List: Operation<Body = Nothing, Answer = Page<Self::Item>, Query: Clone>;

    /// Where to look for `text`.
    fn queries(text: &str) -> Vec<<Self::List as Operation>::Query>;
    fn handle(item: &Self::Item) -> Handle;
}

/// The id of what `text` names.
pub(crate) async fn find<N: Noun>(client: &Client, text: &str) -> Result<Uuid, Failure> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(id);
    }
    let mut found = Vec::new();
    for query in N::queries(text) {
        let mut pages = pin!(client.pages(Call::<N::List>::at(&[]).query(query)));
        while let Some(page) = pages.try_next().await? {
            let handles = page.body.items.iter().map(N::handle);
            found.extend(
                handles
                    .filter(|handle| handle.is_meant_by(text))
                    .map(|handle| handle.id),
            );
        }
    }
    found.sort_unstable();
    found.dedup();
    only::<N>(text, &found)
}

fn only<N: Noun>(text: &str, found: &[Uuid]) -> Result<Uuid, Failure> {
    match found {
        [id] => Ok(*id),
        [] => Err(Failure::NoSuchObject(format!("there is no {} {text:?}", N::WHAT))),
        several => {
            let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
            let what = N::WHAT;
            Err(Failure::NoSuchObject(format!(
                "{text:?} fits more than one {what}\n  name it by id: {}",
                ids.join(", ")
            )))
        }
    }
}

/// The same for each of several.
pub(crate) async fn find_all<N: Noun>(client: &Client, texts: &[String]) -> Result<Vec<Uuid>, Failure> {
    let mut found = Vec::with_capacity(texts.len());
    for text in texts {
        found.push(find::<N>(client, text).await?);
    }
    Ok(found)
}

/// The same for what may be left out.
pub(crate) async fn find_some<N: Noun>(client: &Client, text: Option<&str>) -> Result<Option<Uuid>, Failure> {
    match text {
        Some(text) => find::<N>(client, text).await.map(Some),
        None => Ok(None),
    }
}

/// An id; for objects that have nothing else.
pub(crate) fn id(text: &str) -> Result<Uuid, String> {
    Uuid::try_parse(text).map_err(|_| format!("{text:?} is no id"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nouns::device::Devices;

    #[test]
    fn digits_can_be_a_number_or_a_name() {
        let handle = |name: Option<&str>, number| Handle {
            id: Uuid::nil(),
            name: name.map(str::to_owned),
            number,
        };
        assert!(handle(None, Some(7)).is_meant_by("7"));
        assert!(handle(None, Some(7)).is_meant_by("007"));
        assert!(handle(Some("7"), Some(8)).is_meant_by("7"));
        assert!(!handle(Some("vol7"), Some(8)).is_meant_by("7"));
        assert!(!handle(None, None).is_meant_by("7"));
        assert_eq!(
            [number("+7"), number("7"), number("x"), number("99999999999")],
            [None, Some(7), None, None]
        );
    }

    #[test]
    fn nothing_and_too_much_are_told_apart() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(only::<Devices>("x", &[a]).unwrap(), a);
        assert_eq!(
            only::<Devices>("x", &[]).unwrap_err().to_string(),
            "there is no device \"x\""
        );
        assert!(
            only::<Devices>("x", &[a, b])
                .unwrap_err()
                .to_string()
                .contains(&b.to_string())
        );
    }
}
