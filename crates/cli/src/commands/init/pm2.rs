//! What a PM2 file says; of a JavaScript one, its list of literals.

use std::path::Path;

use serde_yaml::Value;

use super::project::{folder_of, text};
use super::{Found, Sight, Start, port};

/// Reads `apps`.
pub(super) fn read(root: &Path, file: &str, sight: &mut Sight) {
    let Some(text) = text(root, file) else { return };
    // A JavaScript literal without comments is a flow mapping of YAML, and so is JSON.
    let literal = apps_of(&without_comments(&text));
    let parsed = literal.as_deref().map_or_else(|| serde_yaml::from_str::<Value>(&text), serde_yaml::from_str::<Value>);
    let Ok(apps) = parsed else {
        sight.notes.push(format!("{file}: its apps are no plain list of values"));
        return;
    };
    let apps = apps.get("apps").cloned().unwrap_or(apps);
    for app in apps.as_sequence().into_iter().flatten() {
        app_of(root, file, app, sight);
    }
}

fn app_of(root: &Path, file: &str, app: &Value, sight: &mut Sight) {
    let of = |key: &str| app.get(key).and_then(words);
    let Some(script) = of("script") else {
        sight.notes.push(format!("an app of {file} without `script`"));
        return;
    };
    let script = script.strip_prefix("./").map_or_else(|| script.clone(), str::to_owned);
    let interpreter = of("interpreter").unwrap_or_else(|| match script.rsplit('.').next() {
        Some("js" | "mjs" | "cjs") => "node".to_owned(),
        Some("py") => "python3".to_owned(),
        Some("sh") => "sh".to_owned(),
        _ => "none".to_owned(),
    });
    let program = if script.contains('/') || interpreter != "none" || script.contains(' ') {
        script.clone()
    } else {
        format!("./{script}")
    };
    let run =
        [if interpreter == "none" { String::new() } else { interpreter }, program, of("args").unwrap_or_default()];
    let cwd = of("cwd").map(|cwd| cwd.trim_start_matches("./").to_owned()).filter(|cwd| !cwd.is_empty() && cwd != ".");
    let name = of("name").unwrap_or_else(|| {
        script.rsplit('/').next().unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
    });
    let mut found = Found {
        run: Some(Start::new(run.join(" ").split_whitespace().collect::<Vec<_>>().join(" "))),
        instances: of("instances").and_then(|number| match number.as_str() {
            "max" | "0" => Some("cores".to_owned()),
            "1" => None,
            other => other.parse::<u16>().ok().map(|number| number.to_string()),
        }),
        because: vec![format!("{file} `{name}`")],
        cwd: cwd.clone(),
        name,
        ..Found::default()
    };
    if let Some(Value::Mapping(env)) = app.get("env") {
        for (name, value) in env {
            match (name.as_str(), words(value)) {
                (Some("PORT"), Some(port)) => {
                    found.because.push(format!("PORT={port} is left out: each process is told its own"))
                }
                (Some(name), Some(value)) => found.env.push((name.to_owned(), value)),
                _ => {}
            }
        }
    }
    for key in ["max_memory_restart", "watch", "cron_restart", "wait_ready"] {
        if app.get(key).is_some_and(|value| !matches!(value, Value::Bool(false) | Value::Null)) {
            sight.notes.push(format!("`{key}` of {}: it has no counterpart in this version", found.name));
        }
    }
    port::find(root, cwd.as_deref().unwrap_or_else(|| folder_of(file)), &mut found);
    sight.add(found);
}

fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Sequence(items) => Some(items.iter().filter_map(words).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

/// The list behind `apps:` as text.
fn apps_of(text: &str) -> Option<String> {
    let at = text.find("apps")?;
    let from = at + text[at..].find('[')?;
    let mut depth = 0_usize;
    let mut quote = None;
    for (index, c) in text[from..].char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(text[from..=from + index].replace('\t', " ").replace('`', "\""));
                }
            }
            _ => {}
        }
    }
    None
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c, chars.peek()) {
            (Some(open), c, _) if open == c => quote = None,
            (None, '"' | '\'' | '`', _) => quote = Some(c),
            (None, '/', Some('/')) => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
                continue;
            }
            (None, '/', Some('*')) => {
                let mut last = ' ';
                for c in chars.by_ref() {
                    if (last, c) == ('*', '/') {
                        break;
                    }
                    last = c;
                }
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}
