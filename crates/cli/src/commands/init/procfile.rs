//! What a Procfile says.

use std::path::Path;

use super::project::text;
use super::{Found, Sight, Start};

/// Reads `NAME: COMMAND` lines.
pub(super) fn read(root: &Path, file: &str, sight: &mut Sight) {
    for (index, line) in text(root, file).unwrap_or_default().lines().enumerate() {
        let line = line.trim();
        let Some((name, command)) = line.split_once(':').filter(|_| !line.starts_with('#')) else { continue };
        let (name, command) = (name.trim(), command.trim());
        if name.is_empty() || command.is_empty() {
            continue;
        }
        if name == "release" {
            sight.notes.push(format!("`release` of {file}: it runs once before a release; run it yourself: {command}"));
            continue;
        }
        sight.add(Found {
            name: name.to_owned(),
            run: Some(Start::new(command)),
            because: vec![format!("{file}:{}", index + 1)],
            serves: name == "web" || command.contains("PORT"),
            ..Found::default()
        });
    }
}
