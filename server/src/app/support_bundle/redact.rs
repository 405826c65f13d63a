//! Takes secrets out of what goes into a bundle.
//!
//! Nothing that is gathered should hold any: tables are read by types that leave secrets out. This is the second line:
//! values under names that secrets have, users and passwords in URIs, credentials in text, and any long run of letters
//! and digits, which is what keys, tokens and digests look like.

use serde_json::Value;

/// What stands in a secret's place.
const REMOVED: &str = "(removed)";
/// Parts of names whose values are secrets.
const NAMES: [&str; 8] = [
    "password",
    "secret",
    "token",
    "hash",
    "credential",
    "signature",
    "private",
    "authorization",
];
/// A run of this many characters is no word, and longer than a UUID.
const LONG_RUN: usize = 40;

/// Takes secrets out of a value.
pub fn value(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                let value = if is_secret(&name, &value) {
                    REMOVED.into()
                } else {
                    self::value(value)
                };
                (name, value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(self::value).collect()),
        Value::String(text) => Value::String(self::text(&text)),
        other => other,
    }
}

/// Counts and times under such names are none.
fn is_secret(name: &str, value: &Value) -> bool {
    let name = name.to_ascii_lowercase();
    let named = NAMES.iter().any(|part| name.contains(part)) || name == "key" || name.ends_with("_key");
    named && !matches!(value, Value::Null | Value::Bool(_) | Value::Number(_))
}

/// Takes secrets out of a text.
pub fn text(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.len() - rest.trim_start_matches(|c: char| !in_run(c)).len();
        cleaned.push_str(&rest[..word]);
        rest = &rest[word..];
        let run = rest.len() - rest.trim_start_matches(in_run).len();
        match &rest[..run] {
            long if long.len() >= LONG_RUN => cleaned.push_str(REMOVED),
            short => cleaned.push_str(short),
        }
        rest = &rest[run..];
    }
    after("Bearer ", &after("Basic ", &without_users(&cleaned)))
}

fn in_run(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_+".contains(c)
}

/// Replaces the word after each `mark`.
fn after(mark: &str, text: &str) -> String {
    let mut parts = text.split(mark);
    let mut cleaned = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let word = part
            .find(|c: char| c.is_whitespace() || "\"',;".contains(c))
            .unwrap_or(part.len());
        cleaned += mark;
        cleaned += REMOVED;
        cleaned += &part[word..];
    }
    cleaned
}

/// Replaces what stands before the `@` of URIs.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let mut cleaned = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority = part
            .find(|c: char| c.is_whitespace() || "/?#\"'".contains(c))
            .unwrap_or(part.len());
        cleaned += "://";
        match part[..authority].rfind('@') {
            Some(at) => {
                cleaned += REMOVED;
                cleaned += &part[at..];
            }
            None => cleaned += part,
        }
    }
    cleaned
}

/// Scheme and host of a URL: paths and queries of webhooks are often secrets.
pub fn url(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(url) => format!(
            "{}://{}/{REMOVED}",
            url.scheme(),
            url.host_str().unwrap_or_default()
        ),
        Err(_) => REMOVED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_secrets_go_and_everything_else_stays() {
        let id = uuid::Uuid::new_v4().to_string();
        let given = json!({
            "id": id, "password": "a", "former_secret_until": null, "tokens": 3, "private_key": "x",
            "list": [{"password_hash": "$argon2id$v=19$m=1"}], "text": "a plain sentence, as it is",
        });
        let left = json!({
            "id": id, "password": REMOVED, "former_secret_until": null, "tokens": 3, "private_key": REMOVED,
            "list": [{"password_hash": REMOVED}], "text": "a plain sentence, as it is",
        });
        assert_eq!(value(given), left);
    }

    #[test]
    fn texts_lose_credentials_wherever_they_stand() {
        let token = format!("ashlar_{}", "0f".repeat(32));
        for (given, left) in [
            (format!("with {token}, again"), format!("with {REMOVED}, again")),
            (
                "GET Bearer abc.def \"x\"".into(),
                format!("GET Bearer {REMOVED} \"x\""),
            ),
            (
                "nbd://anna:geheim@host/x and nbd://host/y".into(),
                format!("nbd://{REMOVED}@host/x and nbd://host/y"),
            ),
            ("ä 100 %, device-1".into(), "ä 100 %, device-1".into()),
        ] {
            assert_eq!(text(&given), left);
        }
        assert_eq!(
            url("https://hooks.example/T0/B0/abc?x=1"),
            format!("https://hooks.example/{REMOVED}")
        );
    }
}
