//! The manifest that is written: short, and with a reason beside each line that was not plain.

use std::fmt::Write as _;

use super::{Found, Sight};

/// The text of a manifest for what was found.
pub(super) fn manifest(mesh: &str, sight: &Sight) -> String {
    let mut text = String::from(
        "# `synego check` finds mistakes, `synego up` runs this, `synego explain services` lists every key.\n",
    );
    let _ = writeln!(text, "mesh: {mesh}  # the folder's name");
    text.push_str("services:\n");
    let front = sight.services.iter().position(|found| found.serves).unwrap_or(0);
    for (index, found) in sight.services.iter().enumerate() {
        service(&mut text, found, (sight.services.len() > 1).then_some(index == front));
    }
    for note in &sight.notes {
        let _ = writeln!(text, "# left out: {note}");
    }
    text
}

/// `front`: whether it is the one that gets `/`; `None`: it is alone, so it gets it anyway.
fn service(text: &mut String, found: &Found, front: Option<bool>) {
    let _ = writeln!(text, "  {}:  # {}", found.name, found.because.join("; "));
    let mut line = |key: &str, value: String, why: &str| {
        let why = if why.is_empty() { String::new() } else { format!("  # {why}") };
        let _ = writeln!(text, "    {key}: {value}{why}");
    };
    if let Some(address) = &found.address {
        line("address", scalar(address), "it runs already, so it is not started here");
    }
    if let Some(build) = &found.build {
        line("build", scalar(build), "before its first start");
    }
    if let Some(run) = &found.run {
        if run.needs_shell() {
            line("run", format!("[sh, -c, {}]", quoted(&format!("exec {}", run.text))), "only a shell understands it");
        } else {
            line("run", scalar(&run.text), "");
        }
    }
    if let Some(cwd) = &found.cwd {
        line("cwd", scalar(cwd), "");
    }
    let many = found.instances.as_deref().is_some_and(|number| number != "1");
    match (found.port, &found.run) {
        (Some(port), Some(_)) if many => line("# port", port.to_string(), "let it read PORT, so that several can run"),
        (Some(port), Some(_)) => line("port", port.to_string(), "let it read PORT, and leave this out"),
        (None, Some(_)) if !found.serves => line(
            "# port",
            "auto".to_owned(),
            "it counts as ready once it listens on PORT; one of its own is written here",
        ),
        _ => {}
    }
    if let Some(instances) = &found.instances {
        line("instances", instances.clone(), "");
    }
    if !found.after.is_empty() {
        line("after", format!("[{}]", found.after.join(", ")), "these are ready before it starts");
    }
    if !found.env_file.is_empty() {
        line(
            "env_file",
            format!("[{}]", found.env_file.iter().map(|file| scalar(file)).collect::<Vec<_>>().join(", ")),
            "",
        );
    }
    if !found.env.is_empty() {
        let _ = writeln!(text, "    env:");
        for (name, value) in &found.env {
            let (value, why) = masked(name, value);
            let _ = writeln!(text, "      {name}: {value}{why}");
        }
    }
    match front {
        Some(true) => {
            let _ = writeln!(text, "    routes: [/]  # what the outside reaches it by");
        }
        Some(false) => {
            let _ = writeln!(text, "    routes: []  # inside only; to open it: [/{}]", found.name);
        }
        None => {}
    }
}

/// A secret is not copied: it is taken from the environment.
fn masked(name: &str, value: &str) -> (String, &'static str) {
    let upper = name.to_uppercase();
    let secret =
        ["PASSWORD", "SECRET", "TOKEN", "CREDENTIAL", "API_KEY", "PRIVATE"].iter().any(|word| upper.contains(word));
    if secret && !value.is_empty() && !value.contains("${") {
        return (format!("\"${{{name}}}\""), "  # set it outside: no secret stands in a file");
    }
    (scalar(value), "")
}

/// `text` as YAML reads it back, quoted where it must be.
pub(super) fn scalar(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " ./-_=+@:,%".contains(c))
        && text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '.' || c == '/')
        && !text.contains(": ")
        && !text.contains(", ")
        && !text.ends_with([':', ' '])
        && !["true", "false", "null", "yes", "no", "on", "off", "~"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_yaml_would_read_otherwise_is_quoted() {
        assert_eq!(scalar("node src/server.js"), "node src/server.js");
        for text in ["no", "1.10", "22:22", "a: b", "*x", "", "${X}", "say \"x\""] {
            let written = scalar(text);
            assert!(written.starts_with('"'), "{written}");
            assert_eq!(serde_yaml::from_str::<String>(&written).ok().as_deref(), Some(text));
        }
    }
}
