//! `synego show`: what the manifest says in full, value by value, with where each was said.

use std::collections::BTreeMap;

use serde_json::json;
use synego_manifest::{EffectiveValue, Manifest};

use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::manifest;
use crate::output::{Answer, Cell, Column, Table, Tone};

const EXAMPLES: &str = "\
Examples:
  synego show                              what the files say
  synego show --effective                  every value, also the defaults
  synego show services.users --effective   of one key
  synego show env users                    the variables of a service";

/// Show the manifest's values and where each was said; secrets are masked
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this key and what is below it; or `env` and a service: its variables
    #[arg(value_name = "KEY", num_args = 0..=2)]
    key: Vec<String>,
    /// Also what is nowhere said: the defaults
    #[arg(long)]
    effective: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let manifest = manifest::or_defaults(context)?;
    let values = match args.key.as_slice() {
        [env, service] if env == "env" => variables(&manifest, service, context)?,
        [_, other] => {
            return Err(Failure::misuse(format!("`{other}` is one too many")).help("`synego show KEY`, or `synego show env SERVICE`"));
        }
        [key] => below(manifest.effective(), key, args.effective)?,
        _ => manifest.effective().into_iter().filter(|value| args.effective || value.origin != "default").collect(),
    };
    let items = values.iter().map(|value| json!({"key": value.key, "value": shown(value), "origin": value.origin}));
    let answer = Answer::new("show", "key").of_mesh(manifest.declaration.mesh.as_str(), None).items(items.collect());
    let mut table = Table::new(&[Column::name("KEY"), Column::sentence("VALUE"), Column::stays("ORIGIN")]);
    for value in &values {
        let origin = if value.origin == "default" { Cell::toned(&value.origin, Tone::Dim) } else { Cell::new(&value.origin) };
        table.row(vec![Cell::new(&value.key), Cell::new(shown(value)), origin]);
    }
    context.answer(answer, || {
        if table.is_empty() {
            context.screen.note("nothing is said: `synego show --effective` lists the defaults");
            return String::new();
        }
        // Values are looked up one by one and compared: they are never cut to the first fifty.
        context.table_whole(table)
    });
    Ok(DONE)
}

fn shown(value: &EffectiveValue) -> &str {
    if value.secret { "***" } else { &value.value }
}

/// The values at `key` and below it.
fn below(values: Vec<EffectiveValue>, key: &str, effective: bool) -> Result<Vec<EffectiveValue>, Failure> {
    let inside = |value: &EffectiveValue| value.key == key || value.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    let known: Vec<String> = values.iter().map(|value| value.key.clone()).collect();
    // A key that is asked for by its whole name is shown even where it is a default.
    let exact = known.iter().any(|value| value == key);
    let found: Vec<EffectiveValue> =
        values.into_iter().filter(inside).filter(|value| effective || exact || value.origin != "default").collect();
    if !found.is_empty() || known.iter().any(|value| value.starts_with(&format!("{key}."))) {
        return Ok(found);
    }
    let mut parents: Vec<&str> = known.iter().flat_map(|key| prefixes(key)).collect();
    parents.sort_unstable();
    parents.dedup();
    let near = synego_model::text::nearest(key, parents).map(|near| format!("nearest: `{near}`"));
    Err(Failure::new(format!("the manifest has no key `{key}`"))
        .cause(near.unwrap_or_default())
        .help("`synego show --effective` lists all"))
}

fn prefixes(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices('.').map(|(at, _)| &key[..at]).chain(std::iter::once(key))
}

/// What a process of a service is told: of its files, of `env`, and by us. What it inherits is not listed.
fn variables(manifest: &Manifest, service: &str, context: &Context) -> Result<Vec<EffectiveValue>, Failure> {
    let Some(local) = manifest.local.iter().find(|local| local.spec.name.as_str() == service) else {
        let names = manifest.local.iter().map(|local| local.spec.name.as_str());
        let near = synego_model::text::nearest(service, names).map(|near| format!("nearest: `{near}`"));
        return Err(Failure::new(format!("no service `{service}` on this machine")).cause(near.unwrap_or_default()));
    };
    let said: BTreeMap<String, String> =
        manifest.effective().into_iter().map(|value| (value.key, value.origin)).collect();
    let mut all: BTreeMap<String, EffectiveValue> = BTreeMap::new();
    let mut tell = |name: &str, value: String, origin: String| {
        let secret = is_secret(name);
        all.insert(name.to_owned(), EffectiveValue { key: name.to_owned(), value, origin, secret });
    };
    for file in &local.env_files {
        let values = synego_supervise::read_variables(file)
            .map_err(|error| Failure::new(format!("cannot read {}", file.display())).cause(error.to_string()))?;
        let name = file.strip_prefix(&manifest.root).unwrap_or(file).display().to_string();
        values.into_iter().for_each(|(key, value)| tell(&key, value, name.clone()));
    }
    for (name, value) in &local.env {
        let of_env = said.get(&format!("services.{service}.env.{name}"));
        let origin = of_env.or_else(|| said.get(&format!("services.{service}.env"))).cloned().unwrap_or_default();
        tell(name, value.clone(), origin);
    }
    let at_start = || "(told at its start)".to_owned();
    let port = match &local.target {
        synego_model::Target::Run { port: Some(port), .. } => port.to_string(),
        _ => at_start(),
    };
    tell("PORT", port, "synego".into());
    tell("SYNEGO_SERVICE", service.to_owned(), "synego".into());
    for name in ["SYNEGO_INSTANCE", "SYNEGO_SIDECAR", "SYNEGO_OUTBOUND"] {
        tell(name, at_start(), "synego".into());
    }
    for used in &local.spec.uses {
        tell(&format!("SYNEGO_URL_{}", used.as_str().to_uppercase().replace('-', "_")), at_start(), "synego".into());
    }
    context.screen.note(&format!("inherited variables are not listed: {} of them", context.environment.len()));
    Ok(all.into_values().collect())
}

fn is_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "CREDENTIAL", "API_KEY", "PRIVATE"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, origin: &str) -> EffectiveValue {
        EffectiveValue { key: key.into(), value: "1".into(), origin: origin.into(), secret: false }
    }

    #[test]
    fn a_key_shows_itself_and_what_is_below_it() {
        let values = || vec![value("services.users.run", "synego.yaml:3"), value("services.users2.run", "synego.yaml:9"), value("services.users.policy.timeout", "default")];
        let keys = |found: Vec<EffectiveValue>| found.into_iter().map(|value| value.key).collect::<Vec<_>>();
        assert_eq!(below(values(), "services.users", false).map(keys), Ok(vec!["services.users.run".to_owned()]));
        assert_eq!(below(values(), "services.users", true).map(keys).map(|keys| keys.len()), Ok(2));
        assert_eq!(below(values(), "services.users.policy.timeout", false).map(keys).map(|keys| keys.len()), Ok(1));
        let failure = below(values(), "services.usres", false).unwrap_err();
        assert_eq!(failure.cause, ["nearest: `services.users`"]);
    }
}
