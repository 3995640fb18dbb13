//! What a changed manifest would change, and what each change does to what runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::effective::EffectiveValue;
use crate::keys::{self, Effect};
use crate::manifest::Manifest;

/// What happens to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Add,
    /// It gets another value.
    Change,
    /// It is gone.
    Remove,
}

impl Action {
    /// The sign before it: `+`, `~` or `-`.
    #[must_use]
    pub fn mark(self) -> char {
        match self {
            Self::Add => '+',
            Self::Change => '~',
            Self::Remove => '-',
        }
    }

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// The key, such as `services.users.policy.timeout`, or a whole service, `services.legacy`.
    pub path: String,
    /// What happens to it.
    pub action: Action,
    /// Its value before; secrets masked.
    pub before: Option<String>,
    /// Its value afterwards; secrets masked.
    pub after: Option<String>,
    /// What that does to what runs.
    pub effect: Effect,
    /// Where the value afterwards was said, or the one before when it is gone.
    pub origin: String,
}

/// What `after` changes of `before`, in the order of the table of keys. A whole service that comes or goes is one change.
#[must_use]
pub fn plan(before: &Manifest, after: &Manifest) -> Vec<PlannedChange> {
    let (old, new) = (index(&before.effective), index(&after.effective));
    let services = |manifest: &Manifest| {
        manifest.declaration.services.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    let (had, has) = (services(before), services(after));
    let whole = |key: &str| {
        let name = key.strip_prefix("services.").and_then(|rest| rest.split('.').next()).unwrap_or_default().to_owned();
        had.contains(&name) != has.contains(&name)
    };
    let mut changes: Vec<PlannedChange> = Vec::new();
    for value in after.effective.iter().filter(|value| !whole(&value.key)) {
        match old.get(value.key.as_str()) {
            None => changes.push(change(Action::Add, None, Some(value))),
            Some(before) if follows(before, value) => {}
            Some(before) if !before.same_value(value) => {
                changes.push(change(Action::Change, Some(before), Some(value)))
            }
            Some(_) => {}
        }
    }
    for value in before.effective.iter().filter(|value| !whole(&value.key) && !new.contains_key(value.key.as_str())) {
        changes.push(change(Action::Remove, Some(value), None));
    }
    changes.extend(has.iter().filter(|name| !had.contains(name)).map(|name| service(Action::Add, name, after)));
    changes.extend(had.iter().filter(|name| !has.contains(name)).map(|name| service(Action::Remove, name, before)));
    changes
}

/// Whether a value merely follows another key.
fn follows(before: &EffectiveValue, after: &EffectiveValue) -> bool {
    after.key.ends_with(".try_timeout") && before.origin == "default" && after.origin == "default"
}

fn index(values: &[EffectiveValue]) -> BTreeMap<&str, &EffectiveValue> {
    values.iter().map(|value| (value.key.as_str(), value)).collect()
}

fn change(action: Action, before: Option<&EffectiveValue>, after: Option<&EffectiveValue>) -> PlannedChange {
    let shown = after.or(before);
    let path = shown.map(|value| value.key.clone()).unwrap_or_default();
    PlannedChange {
        effect: effect(&path),
        path,
        action,
        before: before.map(|value| value.value.clone()),
        after: after.map(|value| value.value.clone()),
        origin: shown.map(|value| value.origin.clone()).unwrap_or_default(),
    }
}

/// What a change of the key at `path` does.
fn effect(path: &str) -> Effect {
    keys::find(path).and_then(|found| found.key).map_or(Effect::Live, |key| key.effect)
}

/// A service that comes or goes as a whole, shown by its routes.
fn service(action: Action, name: &str, manifest: &Manifest) -> PlannedChange {
    let spec = manifest.declaration.services.get(name);
    let routes = spec.and_then(|spec| spec.routes.as_ref());
    let shown = match routes.map(Vec::as_slice) {
        None => "routes of its own".to_owned(),
        Some([]) => "inside".to_owned(),
        Some(routes) => routes.iter().map(|route| route.place.to_string()).collect::<Vec<_>>().join(" "),
    };
    let path = format!("services.{name}");
    let under = format!("{path}.");
    let first = manifest.effective.iter().find(|value| value.key.starts_with(&under) && value.origin != "default");
    let run = manifest.effective.iter().any(|value| value.key == format!("{path}.run"));
    let (before, after) = if action == Action::Add { (None, Some(shown)) } else { (Some(shown), None) };
    PlannedChange {
        path,
        action,
        before,
        after,
        effect: if run { Effect::Scale } else { Effect::Live },
        origin: first.map(|value| value.origin.clone()).unwrap_or_default(),
    }
}
