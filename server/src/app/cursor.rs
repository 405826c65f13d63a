//! Cursors: where a page of a list ended, as clients keep it. Nothing of it is secret, and everything is checked.

use ashlar_openapi::{Problem, ProblemType};
use uuid::Uuid;

use crate::auth::secrets::hex;
use crate::catalog::After;

/// The cursor of a place in a list of the catalog, which is in this order.
pub fn of_row(order: &str, after: &After) -> String {
    format!("{order}.{}.{}", after.id.simple(), hex(after.value.as_bytes()))
}

/// The place that a cursor of [`of_row`] stands for.
///
/// # Errors
/// Where it is none, or one of another order.
pub fn to_row(order: &str, cursor: &str) -> Result<After, Problem> {
    let (given, place) = cursor.split_once('.').ok_or_else(invalid)?;
    let (id, value) = place.split_once('.').ok_or_else(invalid)?;
    let id = Uuid::try_parse(id).map_err(|_| invalid())?;
    let value = unhex(value).and_then(|bytes| String::from_utf8(bytes).ok());
    // Postgres has no such character.
    let value = value.filter(|value| !value.contains('\0')).ok_or_else(invalid)?;
    if given != order {
        return Err(Problem::new(
            ProblemType::InvalidCursor,
            format!("the cursor is of a list in another order than {order:?}"),
            "sort as for the page that the cursor is from, or leave the cursor out to begin",
        )
        .at("cursor"));
    }
    Ok(After { value, id })
}

/// The number that a cursor stands for where a list goes by a number.
///
/// # Errors
/// Where it is none.
pub fn to_number(cursor: &str) -> Result<u64, Problem> {
    let number = cursor.strip_prefix('n').and_then(|text| text.parse().ok());
    number
        .filter(|number| *number <= ashlar_openapi::values::MOST)
        .ok_or_else(invalid)
}

/// The cursor of a number.
pub fn of_number(number: u64) -> String {
    format!("n{number}")
}

fn invalid() -> Problem {
    Problem::new(
        ProblemType::InvalidCursor,
        "the cursor is none that this list gave",
        "use `next_cursor` of a page, or leave it out to begin",
    )
    .at("cursor")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_and_nothing_else_does() {
        let after = After {
            value: "2026-11-23T10:00:00Z äö".into(),
            id: Uuid::new_v4(),
        };
        let back = to_row("-name", &of_row("-name", &after)).unwrap();
        assert_eq!((back.id, &back.value), (after.id, &after.value));
        for wrong in [
            "",
            ".",
            "x.00",
            "00000000000000000000000000000000.0",
            "00000000000000000000000000000000.00",
            "name.",
            "name.x.00",
            "name.00000000000000000000000000000000.0",
            "name.00000000000000000000000000000000.00",
            "n1",
        ] {
            assert_eq!(
                to_row("name", wrong).err().map(|problem| problem.kind),
                Some(ProblemType::InvalidCursor),
                "{wrong}"
            );
        }
        let other = to_row("name", &of_row("-name", &after)).unwrap_err();
        assert_eq!(other.kind, ProblemType::InvalidCursor);
        assert!(other.cause.contains("another order"), "{other}");
        assert_eq!(to_number(&of_number(7)).unwrap(), 7);
        assert!(to_number("7").is_err() && to_number("n-1").is_err());
    }
}
