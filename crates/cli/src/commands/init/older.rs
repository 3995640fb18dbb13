//! `init --from` an older form of the manifest: the same in the form of today.

use std::path::Path;

use serde_yaml::{Mapping, Value};
use synego_manifest::EffectiveValue;

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
    let older = folder.join("synego.config.json");
    let file = match from {
        Some(file) if file.file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known)) => folder.join(file),
        Some(_) => return Ok(None),
        None if older.is_file() => older,
        None => return Ok(None),
    };
    let outcome = manifest::told(context, manifest::read_file(context, Some(&file), false)?, "nothing was written")?;
    let Some(read) = &outcome.manifest else {
        return Err(Failure::new(format!("there is no file {}", file.display())));
    };
    let body = yaml(&read.effective());
    Ok(Some(format!("# Written by `synego init` of {}.\n{body}", outcome.title())))
}

/// What was said (not what is a default), as nested YAML.
fn yaml(values: &[EffectiveValue]) -> String {
    let mut root = Mapping::new();
    for said in values.iter().filter(|value| value.origin != "default" && !value.secret) {
        let value = serde_yaml::from_str(&said.value).unwrap_or_else(|_| Value::String(said.value.clone()));
        let parts: Vec<&str> = said.key.split('.').collect();
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
    fn only_what_was_said_is_written_and_nested_by_its_path() {
        let value = |key: &str, value: &str, origin: &str| EffectiveValue {
            key: key.into(),
            value: value.into(),
            origin: origin.into(),
            secret: false,
        };
        let values = [
            value("mesh", "shop", "default"),
            value("masters.ingress", "127.0.0.1:3000", "synego.config.json:1"),
            value("masters.join", "[m2:3001]", "synego.config.json:1"),
        ];
        assert_eq!(yaml(&values), "masters:\n  ingress: 127.0.0.1:3000\n  join:\n  - m2:3001\n");
    }
}
