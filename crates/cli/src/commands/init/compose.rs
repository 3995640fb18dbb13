//! What a compose file says: containers become processes where their command is known.

use std::path::Path;

use serde_yaml::Value;

use super::project::{folder_of, join, text};
use super::{Found, Sight, Start};

/// Images of stores and brokers: they stay in their containers.
const STORES: &[&str] = &[
    "postgres",
    "mysql",
    "mariadb",
    "redis",
    "valkey",
    "mongo",
    "rabbitmq",
    "nats",
    "kafka",
    "elasticsearch",
    "minio",
    "memcached",
    "clickhouse",
    "etcd",
];

/// Reads `services`.
pub(super) fn read(root: &Path, file: &str, sight: &mut Sight) {
    let parsed = text(root, file).map(|text| serde_yaml::from_str::<Value>(&text));
    let Some(Ok(compose)) = parsed else {
        sight.notes.push(format!("{file}: it cannot be read as YAML"));
        return;
    };
    let Some(services) = compose.get("services").and_then(Value::as_mapping) else { return };
    for (name, service) in services {
        let Some(name) = name.as_str() else { continue };
        service_of(root, file, name, service, sight);
    }
    let known: Vec<String> = sight.services.iter().map(|found| found.name.clone()).collect();
    for found in &mut sight.services {
        found.after.retain(|name| known.contains(name));
    }
}

fn service_of(root: &Path, file: &str, name: &str, service: &Value, sight: &mut Sight) {
    let image = service.get("image").and_then(Value::as_str).unwrap_or_default();
    let short = image.rsplit('/').next().unwrap_or_default().split([':', '@']).next().unwrap_or_default();
    let (published, inside) = ports(service);
    if STORES.iter().any(|store| short.contains(store)) {
        sight.notes.push(format!("`{name}` of {file}: {image} stays in its container"));
        return;
    }
    let context = match service.get("build") {
        Some(Value::String(context)) => Some(context.clone()),
        Some(Value::Mapping(build)) => build.get("context").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let folder = context.as_deref().map(|context| join(folder_of(file), context));
    let said = service.get("command").and_then(words);
    let of_image = || folder.as_deref().and_then(|folder| dockerfile(root, folder));
    let command = said.map(|command| (command, format!("{file} services.{name}.command"))).or_else(of_image);
    let mut found = Found { name: name.to_owned(), ..Found::default() };
    match (command, folder, published) {
        (Some((command, because)), Some(folder), _) => {
            found.run = Some(Start::new(command));
            found.cwd = (!folder.is_empty() && folder != ".").then_some(folder);
            found.because = vec![because];
            found.port = inside;
            if let Some(port) = inside {
                found.because.push(format!("its container listens on {port}"));
            }
        }
        (_, _, Some(port)) => {
            found.address = Some(format!("127.0.0.1:{port}"));
            found.because = vec![format!("{file}: it stays in its container, published on {port}")];
        }
        _ => {
            sight.notes.push(format!("`{name}` of {file}: neither a command nor a published port is known"));
            return;
        }
    }
    found.serves = inside.is_some();
    if found.run.is_some() {
        found.env = variables(service.get("environment"));
        found.env_file = service.get("env_file").map(list).unwrap_or_default();
    }
    found.instances =
        service.get("deploy").and_then(|deploy| deploy.get("replicas")).and_then(Value::as_u64).map(|n| n.to_string());
    found.after = match service.get("depends_on") {
        Some(Value::Mapping(map)) => map.keys().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(other) => list(other),
        None => Vec::new(),
    };
    sight.add(found);
}

/// The port on this machine, and the one in the container.
fn ports(service: &Value) -> (Option<u16>, Option<u16>) {
    let first = service.get("ports").and_then(Value::as_sequence).and_then(|ports| ports.first());
    match first {
        Some(Value::String(text)) => {
            let text = text.split('/').next().unwrap_or_default();
            let mut parts = text.rsplit(':');
            let inside = parts.next().and_then(|port| port.parse().ok());
            (parts.next().and_then(|port| port.parse().ok()), inside)
        }
        Some(Value::Number(number)) => (None, number.as_u64().and_then(|port| u16::try_from(port).ok())),
        Some(Value::Mapping(map)) => {
            let port = |key: &str| {
                map.get(key).and_then(|value| match value {
                    Value::String(text) => text.parse().ok(),
                    other => other.as_u64().and_then(|port| u16::try_from(port).ok()),
                })
            };
            (port("published"), port("target"))
        }
        _ => (None, None),
    }
}

fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Sequence(_) => Some(list(value).join(" ")),
        _ => None,
    }
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Sequence(items) => items.iter().filter_map(scalar).collect(),
        _ => Vec::new(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

fn variables(value: Option<&Value>) -> Vec<(String, String)> {
    match value {
        Some(Value::Mapping(map)) => {
            map.iter().filter_map(|(name, value)| Some((name.as_str()?.to_owned(), scalar(value)?))).collect()
        }
        Some(Value::Sequence(items)) => items
            .iter()
            .filter_map(|item| item.as_str()?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        _ => Vec::new(),
    }
}

/// The `CMD` of a Dockerfile, and where it stands.
fn dockerfile(root: &Path, folder: &str) -> Option<(String, String)> {
    let file = join(folder, "Dockerfile");
    let text = text(root, &file)?;
    let (number, command) =
        text.lines().enumerate().filter_map(|(n, line)| Some((n, line.trim().strip_prefix("CMD ")?))).last()?;
    let command = match serde_json::from_str::<Vec<String>>(command) {
        Ok(words) => words.join(" "),
        Err(_) => command.to_owned(),
    };
    Some((command, format!("{file}:{}", number + 1)))
}
