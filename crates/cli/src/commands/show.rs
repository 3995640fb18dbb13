//! `synego show`: what the manifest says in full, value by value, with where each was said.

use std::collections::BTreeMap;

use serde_json::json;
use synego_manifest::Manifest;
use synego_model::process::ServiceAddress;
use synego_model::{Listens, Target};

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

/// One value, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    key: String,
    /// Masked where it is a secret.
    value: String,
    origin: String,
}

impl Shown {
    fn new(key: &str, value: &str, origin: &str, secret: bool) -> Self {
        let value = if secret { "***" } else { value };
        Self { key: key.to_owned(), value: value.to_owned(), origin: origin.to_owned() }
    }

    fn is_said(&self) -> bool {
        self.origin != "default"
    }
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let manifest = manifest::or_defaults(context)?;
    let all = || -> Vec<Shown> {
        let values = manifest.effective().iter();
        values.map(|value| Shown::new(&value.key, &value.value, &value.origin, value.secret)).collect()
    };
    let values = match args.key.as_slice() {
        [env, service] if env == "env" => variables(&manifest, service, context)?,
        [_, other] => {
            return Err(Failure::misuse(format!("`{other}` is one too many"))
                .help("`synego show KEY`, or `synego show env SERVICE`"));
        }
        [key] => below(all(), key, args.effective)?,
        _ => all().into_iter().filter(|value| args.effective || value.is_said()).collect(),
    };
    let items = values.iter().map(|value| json!({"key": value.key, "value": value.value, "origin": value.origin}));
    let answer = Answer::new("show", "key").of_mesh(manifest.declaration.mesh.as_str(), None).items(items.collect());
    let mut table = Table::new(&[Column::name("KEY"), Column::sentence("VALUE"), Column::stays("ORIGIN")]);
    for value in &values {
        let origin = if !value.is_said() { Cell::toned(&value.origin, Tone::Dim) } else { Cell::new(&value.origin) };
        table.row(vec![Cell::new(&value.key), Cell::new(&value.value), origin]);
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

/// The values at `key` and below it.
fn below(values: Vec<Shown>, key: &str, effective: bool) -> Result<Vec<Shown>, Failure> {
    let inside =
        |value: &Shown| value.key == key || value.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    let known: Vec<String> = values.iter().map(|value| value.key.clone()).collect();
    // A key that is asked for by its whole name is shown even where it is a default.
    let exact = known.iter().any(|value| value == key);
    let found: Vec<Shown> =
        values.into_iter().filter(inside).filter(|value| effective || exact || value.is_said()).collect();
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
fn variables(manifest: &Manifest, service: &str, context: &Context) -> Result<Vec<Shown>, Failure> {
    let Some(local) = manifest.local.iter().find(|local| local.spec.name.as_str() == service) else {
        let names = manifest.local.iter().map(|local| local.spec.name.as_str());
        let near = synego_model::text::nearest(service, names).map(|near| format!("nearest: `{near}`"));
        return Err(Failure::new(format!("no service `{service}` on this machine")).cause(near.unwrap_or_default()));
    };
    let said: BTreeMap<String, String> =
        manifest.effective().iter().map(|value| (value.key.clone(), value.origin.clone())).collect();
    let mut all: BTreeMap<String, Shown> = BTreeMap::new();
    let mut tell = |name: &str, value: &str, origin: &str| {
        all.insert(name.to_owned(), Shown::new(name, value, origin, is_secret(name)));
    };
    for file in &local.env_files {
        let name = file.strip_prefix(&manifest.root).unwrap_or(file).display().to_string();
        let values = synego_supervise::read_variables(file).map_err(Failure::new)?;
        values.iter().for_each(|(key, value)| tell(key, value, &name));
    }
    for (name, value) in &local.env {
        let of_env = said.get(&format!("services.{service}.env.{name}"));
        let origin = of_env.or_else(|| said.get(&format!("services.{service}.env"))).cloned().unwrap_or_default();
        tell(name, value, &origin);
    }
    const AT_START: &str = "(told at its start)";
    let (name, place) = match &local.target {
        Target::Run { listens: Listens::OwnSocket, .. } => ("SOCKET", AT_START.to_owned()),
        Target::Run { listens: Listens::At(ServiceAddress::Unix(path)), .. } => ("SOCKET", path.display().to_string()),
        Target::Run { listens: Listens::At(ServiceAddress::Tcp(address)), .. } => ("PORT", address.port().to_string()),
        _ => ("PORT", AT_START.to_owned()),
    };
    tell(name, &place, "synego");
    tell("SYNEGO_SERVICE", service, "synego");
    for name in ["SYNEGO_INSTANCE", "SYNEGO_SIDECAR", "SYNEGO_OUTBOUND"] {
        tell(name, AT_START, "synego");
    }
    for used in &local.spec.uses {
        tell(&synego_sidecar::url_variable(used), AT_START, "synego");
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

    fn value(key: &str, origin: &str) -> Shown {
        Shown::new(key, "1", origin, false)
    }

    #[test]
    fn a_key_shows_itself_and_what_is_below_it() {
        let values = || {
            vec![
                value("services.users.run", "synego.yaml:3"),
                value("services.users2.run", "synego.yaml:9"),
                value("services.users.policy.timeout", "default"),
            ]
        };
        let keys = |found: Vec<Shown>| found.into_iter().map(|value| value.key).collect::<Vec<_>>();
        assert_eq!(below(values(), "services.users", false).map(keys), Ok(vec!["services.users.run".to_owned()]));
        assert_eq!(below(values(), "services.users", true).map(keys).map(|keys| keys.len()), Ok(2));
        assert_eq!(below(values(), "services.users.policy.timeout", false).map(keys).map(|keys| keys.len()), Ok(1));
        let failure = below(values(), "services.usres", false).unwrap_err();
        assert_eq!(failure.cause, ["nearest: `services.users`"]);
    }
}
