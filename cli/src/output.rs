//! What goes to standard output: tables and fields for people, the API's JSON, or ids.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::format::{fields, plain};
use crate::json::Json;

/// For whom the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    People,
    /// The API's JSON, unchanged.
    Json,
    /// Ids, one a line.
    Ids,
}

/// A page as it came.
#[derive(Serialize, Deserialize)]
struct RawPage {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

impl Output {
    /// One object: `text` is the answer's JSON.
    pub(crate) fn object(self, text: &str, id: &str) -> Result<(), Failure> {
        self.made(text, "", id)
    }

    /// An answer whose field `inner` holds the object, which is told first.
    pub(crate) fn made(self, text: &str, inner: &str, id: &str) -> Result<(), Failure> {
        match self {
            Self::Json => line(text.trim_end()),
            Self::Ids if id.is_empty() => Ok(()),
            Self::Ids => line(id),
            Self::People => {
                let json: Json =
                    serde_json::from_str(text).map_err(|error| Failure::Terminal(error.into()))?;
                lines(
                    fields(&lifted(json, inner))
                        .iter()
                        .map(|(name, value)| format!("{name}: {value}")),
                )
            }
        }
    }

    /// One object, of which the fields `told` are told as a table after all others.
    pub(crate) fn detail(
        self,
        text: &str,
        id: &str,
        told: &[&str],
        (headers, rows): (&[&str], Vec<Vec<String>>),
    ) -> Result<(), Failure> {
        if self != Self::People {
            return self.object(text, id);
        }
        let json: Json = serde_json::from_str(text).map_err(|error| Failure::Terminal(error.into()))?;
        let shown = fields(&without(json, told)).into_iter();
        let shown = shown.map(|(name, value)| format!("{name}: {value}"));
        lines(shown.chain([String::new()]).chain(render(headers, rows)))
    }

    /// The pages of a list, joined into one of the same form.
    pub(crate) fn pages(self, pages: &[String]) -> Result<(), Failure> {
        if let [page] = pages {
            return line(page.trim_end());
        }
        line(&join(pages).map_err(|error| Failure::Terminal(error.into()))?)
    }

    /// Something that was done and has nothing to show.
    pub(crate) fn done(self, text: &str) -> Result<(), Failure> {
        if self == Self::People { line(text) } else { Ok(()) }
    }
}

fn join(pages: &[String]) -> serde_json::Result<String> {
    let mut whole = RawPage {
        items: Vec::new(),
        next_cursor: None,
    };
    for page in pages {
        let page: RawPage = serde_json::from_str(page)?;
        whole.items.extend(page.items);
        whole.next_cursor = page.next_cursor;
    }
    serde_json::to_string(&whole)
}

/// The fields of `inner` before all others.
fn lifted(json: Json, inner: &str) -> Json {
    let Json::Object(fields) = json else {
        return json;
    };
    let (inside, beside): (Vec<_>, Vec<_>) = fields
        .into_iter()
        .partition(|(name, value)| name == inner && matches!(value, Json::Object(_)));
    let inside = inside.into_iter().flat_map(|(_, value)| match value {
        Json::Object(fields) => fields,
        Json::List(_) | Json::Scalar(_) => Vec::new(),
    });
    let mut all: Vec<_> = inside.collect();
    for field in beside {
        // What the object says itself need not be said twice.
        if !all.contains(&field) {
            all.push(field);
        }
    }
    Json::Object(all)
}

fn without(json: Json, names: &[&str]) -> Json {
    match json {
        Json::Object(mut fields) => {
            fields.retain(|(name, _)| !names.contains(&name.as_str()));
            Json::Object(fields)
        }
        other => other,
    }
}

/// Aligned columns under headers, without borders.
pub(crate) fn table(headers: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    lines(render(headers, rows))
}

fn render(headers: &[&str], rows: Vec<Vec<String>>) -> Vec<String> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    let plain = rows
        .into_iter()
        .map(|row| row.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    table.set_header(headers.iter().copied()).add_rows(plain);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

pub(crate) fn line(text: &str) -> Result<(), Failure> {
    lines([text])
}

/// Writes lines, and sends them off: whoever reads them may be waiting.
pub(crate) fn lines<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        writeln!(out, "{}", line.as_ref())?;
    }
    Ok(out.flush()?)
}

/// Says something beside the output.
pub(crate) fn note(text: &str) {
    // Nobody reads it there: then nobody misses it.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        let lines = render(&["NAME"], vec![vec!["a\u{1b}[2Jb".to_owned()]]);
        assert_eq!(lines[1], "a\u{fffd}[2Jb");
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_last_word() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned()],
            vec!["longer".to_owned(), "22".to_owned()],
        ];
        assert_eq!(
            render(&["NAME", "N"], rows),
            ["NAME    N", "a       1", "longer  22"]
        );
    }

    #[test]
    fn pages_join_without_a_change_to_their_items() {
        let pages = [
            r#"{"items": [{"b": 1.0,  "a": 2}], "next_cursor": "c"}"#,
            r#"{"items": [3], "next_cursor": null}"#,
        ];
        let joined = join(&pages.map(str::to_owned)).unwrap();
        assert_eq!(joined, r#"{"items":[{"b": 1.0,  "a": 2},3],"next_cursor":null}"#);
    }

    #[test]
    fn what_was_made_is_told_before_what_was_said_of_it() {
        let json: Json =
            serde_json::from_str(r#"{"secret": "s", "bytes": 2, "token": {"id": 1, "bytes": 2}}"#).unwrap();
        let told: Vec<_> = fields(&lifted(json, "token"))
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(told, ["id", "bytes", "secret"]);
        let json: Json = serde_json::from_str(r#"{"volume": null, "mapped": []}"#).unwrap();
        assert_eq!(fields(&lifted(json, "volume")).len(), 2);
    }
}
