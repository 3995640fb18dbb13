//! Nginx on this machine.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use synego_runtime::config;
use tokio::process::Command;

/// Where Nginx lies besides `PATH`: folders that people's `PATH` often lacks.
const USUAL: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin", "/opt/homebrew/bin"];
/// Time for it to say its version.
const WITHIN: Duration = Duration::from_secs(5);

/// An Nginx that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NginxBinary {
    /// Its file.
    pub path: PathBuf,
    /// Its version, such as `1.22.1`.
    pub version: String,
}

impl fmt::Display for NginxBinary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nginx {}", self.version)
    }
}

/// Names the one Nginx to use, in place of looking for it; a file that is none means: there is none.
const CHOICE: &str = "SYNEGO_NGINX";

/// The Nginx that `SYNEGO_NGINX` names, else the first in `PATH` or one of the usual folders that says its version.
pub async fn find() -> Option<NginxBinary> {
    if let Some(path) = config::env(CHOICE) {
        return inspect(Path::new(&path)).await;
    }
    let path = config::env("PATH").unwrap_or_default();
    for dir in path.split(':').filter(|dir| !dir.is_empty()).chain(USUAL) {
        if let Some(found) = inspect(&Path::new(dir).join("nginx")).await {
            return Some(found);
        }
    }
    None
}

/// The Nginx at `path`; `None` when there is none, or it does not say its version.
pub async fn inspect(path: &Path) -> Option<NginxBinary> {
    let is_program = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if !is_program {
        return None;
    }
    let asked = Command::new(path).arg("-v").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(WITHIN, asked).await.ok()?.ok()?;
    let version = version_of(&String::from_utf8_lossy(&output.stderr))?;
    Some(NginxBinary { path: path.to_owned(), version })
}

/// `nginx version: nginx/1.22.1 (Ubuntu)`.
fn version_of(text: &str) -> Option<String> {
    let rest = text.split("nginx/").nth(1)?;
    let version: String = rest.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
    (!version.is_empty()).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_nginx_says() {
        assert_eq!(version_of("nginx version: nginx/1.22.1\n").as_deref(), Some("1.22.1"));
        assert_eq!(version_of("nginx version: nginx/1.18.0 (Ubuntu)\n").as_deref(), Some("1.18.0"));
        assert_eq!(version_of("command not found"), None);
    }

    #[tokio::test]
    async fn what_is_no_nginx_is_not_found() {
        assert_eq!(inspect(Path::new("/bin/sh")).await, None);
        assert_eq!(inspect(Path::new("/nowhere/nginx")).await, None);
    }
}
