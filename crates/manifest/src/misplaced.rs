//! Keys where they do not belong: which place was meant, or which key.

use crate::keys::{self, Section};
use crate::long::{At, nearest_key};
use crate::problems::Problem;
use crate::tree::{Entry, Node};

/// What to say of a key that `section` does not have.
pub(crate) fn unknown(section: &'static Section, entry: &Entry, at: &At) -> Problem {
    let name = &entry.key;
    let written = |key: &str| written(key, &entry.value);
    if section.synonym(name).is_none()
        && let Some((home, pattern)) = home(section, name, at)
    {
        return Problem::new("misplaced_key", format!("`{name}` is not a key of {}", section.article()))
            .expected(format!("expected under `{home}`"))
            .help(format!("write `{}`", pattern.replace('\0', &written(name))));
    }
    let subject = match (section.many, section.noun) {
        (_, "manifest") => "the manifest".to_owned(),
        (true, _) if !at.owner.is_empty() && at.owner.starts_with(section.noun) => at.owner.clone(),
        (true, noun) => format!("a {noun}"),
        (false, noun) => format!("`{noun}`"),
    };
    let nearest = nearest_key(section, name);
    let page = format!("`synego explain {}` lists every key", section.page);
    Problem::new("unknown_key", format!("{subject} has no key `{name}`"))
        .expected(format!("expected a key of {}", section.article()))
        .nearest(nearest)
        .help(match nearest {
            Some(key) => format!("write `{}`; {page}", written_as(section, key, name, &entry.value)),
            None => page,
        })
}

/// `key: VALUE`, with the value as it stands when it is short.
fn written(key: &str, value: &Node) -> String {
    let brief = value.brief(60);
    format!("{key}: {}", if brief.ends_with('…') { "…" } else { &brief })
}

/// The same for another key: with its own example when the value would not do there.
fn written_as(section: &'static Section, key: &'static str, name: &str, value: &Node) -> String {
    let fits = section.key(key).is_some_and(|key| key.shape.takes(crate::long::form_of(value)));
    let renamed = section.synonym(name).is_some();
    match section.key(key) {
        Some(found) if !fits || (renamed && value.is_null()) => found.example.to_owned(),
        _ => written(key, value),
    }
}

/// Where a key of that name belongs: the words for the place, and a pattern with NUL for `key: VALUE`.
fn home(section: &'static Section, name: &str, at: &At) -> Option<(String, String)> {
    // Below first: `timeout` of a service is that of its policy.
    let mut below: Vec<(&'static str, &'static Section)> =
        section.keys().filter_map(|key| Some((key.name, key.shape.section()?))).collect();
    below.sort_by_key(|(key, _)| *key != "policy");
    for (key, inner) in &below {
        if inner.key(name).is_some() && !inner.many {
            return Some(((*key).to_owned(), format!("{key}: {{ \0 }}")));
        }
    }
    // Then where the whole manifest has it, the outermost place first.
    let in_service = at.path.first().is_some_and(|first| first == "services");
    let places: [(&str, &str); 7] = [
        ("services.NAME", "services: { NAME: { \0 } }"),
        ("services.NAME.policy", "policy: { \0 }"),
        ("", "\0"),
        ("gateway", "gateway: { \0 }"),
        ("masters", "masters: { \0 }"),
        ("telemetry.logs", "telemetry: { logs: { \0 } }"),
        ("limits", "limits: { \0 }"),
    ];
    let found = places.iter().find_map(|(path, pattern)| {
        let place = if path.is_empty() { &keys::mesh::ROOT } else { keys::find(path)?.section()? };
        let same = std::ptr::eq(place, section);
        (!same && place.key(name).is_some()).then_some((*path, *pattern))
    })?;
    Some(match found {
        ("", pattern) => ("the manifest itself, not indented".to_owned(), pattern.to_owned()),
        ("services.NAME", pattern) if in_service => {
            ("the service itself".to_owned(), pattern.replace("services: { NAME: { \0 } }", "\0"))
        }
        (path, pattern) => (path.to_owned(), pattern.to_owned()),
    })
}
