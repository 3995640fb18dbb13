//! A JSON body into a type, or all of its mistakes at once.
//!
//! Serde stops at the first mistake. So a body that does not fit is read again and again: each time the mistake is noted
//! and something that fits is put in its place, until the rest is read too. Only bodies that are refused anyway pay.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

/// Mistakes that are told; who has more has sent something else.
const MOST: usize = 20;

/// Reads `body` as a `T`.
///
/// # Errors
/// Every mistake as `path: what is wrong`, joined by `; `.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let first = match serde_path_to_error::deserialize(&mut reader) {
        Ok(value) => return reader.end().map(|()| value).map_err(|error| format!("body: {error}")),
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return Err(format!("body: {}", first.inner())) };
    let mut mistakes: Vec<String> = Vec::new();
    while mistakes.len() < MOST {
        let Err(error) = serde_path_to_error::deserialize::<_, T>(&value) else { break };
        let text = error.inner().to_string();
        mistakes.push(said(error.path(), &text));
        if !mend::<T>(&mut value, error.path(), &text) {
            break;
        }
    }
    if mistakes.is_empty() {
        // What fits as a value but not as text, such as a key said twice.
        mistakes.push(said(first.path(), &first.inner().to_string()));
    }
    Err(mistakes.join("; "))
}

fn said(path: &Path, text: &str) -> String {
    match path.to_string().as_str() {
        "." => text.to_owned(),
        path => format!("{path}: {text}"),
    }
}

/// Puts something in the place of a mistake with which reading comes further; false when nothing does.
fn mend<T: DeserializeOwned>(value: &mut Value, path: &Path, text: &str) -> bool {
    let Some(place) = find(value, path) else { return false };
    let quoted = |start: &str| Some(text.strip_prefix(start)?.split('`').next()?.to_owned());
    if let Some(key) = quoted("unknown field `") {
        // The path leads to the field itself, or to what holds it.
        return remove(value, path, &key);
    }
    let missing = quoted("missing field `");
    if let (Some(key), Some(fields)) = (&missing, place.as_object_mut()) {
        fields.insert(key.clone(), Value::Null);
    }
    let before = (path.to_string(), text.to_owned());
    let own = missing.as_ref().map_or_else(|| before.0.clone(), |key| joined(&before.0, key));
    for candidate in [Value::Null, json!(""), json!(0), json!(false), json!([]), json!({}), json!(1)] {
        let Some(place) = find(value, path) else { return false };
        let place = match &missing {
            Some(key) => place.get_mut(key),
            None => Some(place),
        };
        let Some(place) = place else { return false };
        *place = candidate;
        match serde_path_to_error::deserialize::<_, T>(&*value) {
            Ok(_) => return true,
            Err(next) => {
                let next_path = next.path().to_string();
                let is_same = next_path == before.0 && next.inner().to_string() == before.1;
                if !is_same && next_path != own {
                    return true;
                }
            }
        }
    }
    false
}

fn joined(path: &str, key: &str) -> String {
    if path == "." { key.to_owned() } else { format!("{path}.{key}") }
}

fn find<'a>(value: &'a mut Value, path: &Path) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get_mut(*index),
        Segment::Map { key } => value.get_mut(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

fn remove(value: &mut Value, path: &Path, key: &str) -> bool {
    let mut holder = value;
    for segment in path.iter() {
        let next = match segment {
            Segment::Seq { index } => holder.get_mut(*index),
            Segment::Map { key: name } if name != key => holder.get_mut(name),
            _ => break,
        };
        match next {
            Some(next) => holder = next,
            None => return false,
        }
    }
    holder.as_object_mut().is_some_and(|fields| fields.remove(key).is_some())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Line {
        sku: String,
        quantity: u32,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        user: u64,
        note: Option<String>,
        lines: Vec<Line>,
        gift: bool,
    }

    fn mistakes(body: &str) -> String {
        read::<Order>(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_body_that_fits_is_read() {
        let body = br#"{"user":1,"lines":[{"sku":"tea","quantity":2}],"gift":false}"#;
        let lines = vec![Line { sku: "tea".into(), quantity: 2 }];
        assert_eq!(read::<Order>(body), Ok(Order { user: 1, note: None, lines, gift: false }));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let told = mistakes(r#"{"user":"x","lines":[{"sku":7,"quantity":-1},{"sku":"tea"}],"extra":1}"#);
        for part in [
            "user: invalid type: string \"x\", expected u64",
            "lines[0].sku: invalid type: integer `7`, expected a string",
            "lines[0].quantity: invalid value: integer `-1`, expected u32",
            "lines[1]: missing field `quantity`",
            "unknown field `extra`",
            "missing field `gift`",
        ] {
            assert!(told.contains(part), "{part:?} in {told:?}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        assert!(mistakes("{\"user\":").starts_with("body: EOF while parsing"), "{}", mistakes("{\"user\":"));
        assert!(mistakes("").starts_with("body: EOF"), "{}", mistakes(""));
        let twice = read::<u8>(b"1 2").unwrap_err();
        assert!(twice.starts_with("body: trailing characters"), "{twice}");
    }
}
