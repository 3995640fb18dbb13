//! `init --from` an older form of the manifest: the same in the form of today.

use std::path::Path;

use serde_yaml::{Mapping, Value};

use crate::context::Context;
use crate::failure::Failure;
use crate::manifest;

/// Names of manifests, today's and older ones.
const NAMES: &[&str] = &["synego.config.json", "synego.json", "synego.yaml"];

/// The manifest in `from` (or the `synego.config.json` of the folder) as it is written today; `None` when it is no
/// manifest.
///
/// # Errors
/// When it has mistakes; they have then been told.
pub(super) fn rewritten(from: Option<&Path>, folder: &Path, context: &Context) -> Result<Option<String>, Failure> {
    let older = folder.join(NAMES[0]);
    let file = match from {
        Some(file) if file.file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known)) => file.to_owned(),
        None if older.is_file() => older,
        _ => return Ok(None),
    };
    let outcome = manifest::told(context, manifest::read_file(context, Some(&file), false)?, "nothing was written")?;
    let Some(read) = &outcome.manifest else {
        return Err(Failure::new(format!("there is no file {}", file.display())));
    };
    let values = read.effective().iter().filter(|value| value.origin != "default" && !value.secret);
    let body = yaml(values.map(|value| (value.key.as_str(), value.value.as_str())));
    Ok(Some(format!("# Written by `synego init` of {}.\n{body}", outcome.title())))
}

/// Keys and their values as nested YAML.
fn yaml<'a>(said: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut root = Mapping::new();
    for (key, value) in said {
        let value = serde_yaml::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        let parts: Vec<&str> = key.split('.').collect();
        put(&mut root, &parts, value);
    }
    serde_yaml::to_string(&Value::Mapping(root)).unwrap_or_default()
}

fn put(into: &mut Mapping, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => {
            into.insert((*last).into(), value);
        }
        [first, rest @ ..] => {
            let next = into.entry((*first).into()).or_insert(Value::Null);
            if !next.is_mapping() {
                *next = Value::Mapping(Mapping::new());
            }
            if let Value::Mapping(inner) = next {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_nested_by_its_path() {
        let values = [("mesh", "shop"), ("masters.ingress", "127.0.0.1:3000"), ("masters.join", "[m2:3001]")];
        assert_eq!(yaml(values.into_iter()), "mesh: shop\nmasters:\n  ingress: 127.0.0.1:3000\n  join:\n  - m2:3001\n");
    }
}
