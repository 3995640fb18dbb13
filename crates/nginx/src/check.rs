//! A configuration before the eyes of the real Nginx.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::control;
use crate::find::NginxBinary;

/// Time for `nginx -t`; it resolves no names, since none are written.
const WITHIN: Duration = Duration::from_secs(10);

/// Why Nginx refuses a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nginx refuses the configuration{}{}: {text}", line.map(|line| format!(", line {line}")).unwrap_or_default(), key.as_ref().map(|key| format!(" ({key})")).unwrap_or_default())]
pub struct CheckError {
    /// Line of the text, from 1.
    pub line: Option<usize>,
    /// Key of the manifest that the line came from.
    pub key: Option<String>,
    /// What Nginx says.
    pub text: String,
}

/// Tests a configuration with `nginx -t`, as it would run in `prefix` (see [`prepare`](crate::prepare)). Nothing that
/// runs there is touched.
///
/// # Errors
/// What Nginx says, with the line and the key of the manifest that it came from.
pub async fn check(binary: &NginxBinary, text: &str, prefix: &Path) -> Result<(), CheckError> {
    let other = |text: String| CheckError { line: None, key: None, text };
    let file = control::write_beside(prefix, text).map_err(|error| other(error.to_string()))?;
    let tested = Command::new(&binary.path)
        .args(control::arguments(prefix, file.path()))
        .args(["-t", "-q"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(WITHIN, tested).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(other(format!("cannot run {}: {error}", binary.path.display()))),
        Err(_) => return Err(other(format!("`nginx -t` took longer than {} s", WITHIN.as_secs()))),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(read_error(&String::from_utf8_lossy(&output.stderr), text, file.path()))
}

/// `nginx: [emerg] unknown directive "x" in /prefix/file:12`, perhaps after other lines.
fn read_error(stderr: &str, text: &str, file: &Path) -> CheckError {
    let is_verdict = |line: &&str| line.contains("[emerg]") || line.contains("[alert]");
    let said = stderr.lines().find(is_verdict).or_else(|| stderr.lines().next()).unwrap_or("it does not say why");
    let said = ["[emerg] ", "[alert] "].iter().find_map(|level| said.split_once(level)).map_or(said, |(_, rest)| rest);
    let place = format!(" in {}:", file.display());
    let (said, line) = match said.split_once(&place) {
        Some((said, rest)) => (said, rest.trim().parse::<usize>().ok()),
        None => (said, None),
    };
    let key = line.and_then(|line| key_of(text, line));
    CheckError { line, key, text: said.trim().to_owned() }
}

/// The key that the nearest comment above `line` names.
fn key_of(text: &str, line: usize) -> Option<String> {
    let above: Vec<&str> = text.lines().take(line).collect();
    let comments = above.iter().rev().filter_map(|line| line.trim().strip_prefix("# "));
    comments.map(str::to_owned).find(|comment| {
        ["gateway.", "telemetry.", "limits", "masters.", "services."].iter().any(|begin| comment.starts_with(begin))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_and_the_key_of_a_mistake_are_told() {
        let text =
            "daemon off;\n# gateway.static \"/static\"\nlocation /static/ {\n  # a remark\n  frobnicate on;\n}\n";
        let said = "nginx: [warn] something\nnginx: [emerg] unknown directive \"frobnicate\" in /p/x.conf:5\nnginx: test failed\n";
        let error = read_error(said, text, Path::new("/p/x.conf"));
        assert_eq!(
            error.to_string(),
            "nginx refuses the configuration, line 5 (gateway.static \"/static\"): unknown directive \"frobnicate\""
        );
    }

    #[test]
    fn a_refusal_without_a_line_is_told_as_it_is() {
        let said = "nginx: [emerg] bind() to 0.0.0.0:80 failed (13: Permission denied)\n";
        let error = read_error(said, "", Path::new("/p/x.conf"));
        let expected = "nginx refuses the configuration: bind() to 0.0.0.0:80 failed (13: Permission denied)";
        assert_eq!(error.to_string(), expected);
    }
}
