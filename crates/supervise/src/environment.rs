//! The variables of a process: inherited, then files, then the user's, then ours.

use std::collections::BTreeMap;
use std::path::Path;

use synego_runtime::config;

use crate::rights::rights;
use crate::spec::ProcessSpec;

/// Variables of our own parent that mean us, never a child.
const NOT_INHERITED: [&str; 8] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
];
/// Largest file of variables.
const MAX_FILE: u64 = 1024 * 1024;

/// Variables that say where to listen: only the one of them that we set counts.
const WHERE: [&str; 2] = ["PORT", "SOCKET"];

/// All variables of a process at this start.
///
/// # Errors
/// When a file of variables cannot be read, or a line of it is none: file and line are named. When its user is not known.
pub(crate) fn of(spec: &ProcessSpec) -> Result<BTreeMap<String, String>, String> {
    let mut all = inherited(config::environment(), spec.run_as.pass_env.as_deref());
    if let Some(person) = rights(&spec.run_as)?.and_then(|rights| rights.person) {
        let home = person.home.display().to_string();
        let own = [("USER", person.name.clone()), ("LOGNAME", person.name), ("HOME", home), ("SHELL", person.shell)];
        all.extend(own.map(|(name, value)| (name.to_owned(), value)));
    }
    for file in &spec.env_files {
        all.extend(read_variables(file)?);
    }
    all.extend(spec.user_env.clone());
    if spec.address.is_some() {
        all.retain(|name, _| !WHERE.contains(&name.as_str()));
    }
    all.extend(spec.env.clone());
    Ok(all)
}

/// What a process gets of our own variables.
///
/// - `passed`: patterns of their names; `None`: all.
fn inherited(mut all: BTreeMap<String, String>, passed: Option<&[String]>) -> BTreeMap<String, String> {
    all.retain(|name, _| {
        !NOT_INHERITED.contains(&name.as_str())
            && passed.is_none_or(|passed| passed.iter().any(|pattern| matches(pattern, name)))
    });
    all
}

/// Whether a name is of a pattern, in which `*` is any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            // The rest may begin at any place.
            (0..=name.len()).any(|at| name.get(at..).is_some_and(|name| matches(rest, name)))
        }),
    }
}

/// The variables of a file (`NAME=value` lines, as `env_file` takes them).
///
/// # Errors
/// When it cannot be read or is larger than 1 MiB, or a line of it is none: file and line are named.
pub fn read_variables(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let named = |problem: &dyn std::fmt::Display| format!("cannot read `{}`: {problem}", file.display());
    let size = std::fs::metadata(file).map_err(|error| named(&error))?.len();
    if size > MAX_FILE {
        return Err(named(&format!("{size} bytes, at most {MAX_FILE} are read")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    parse(&text).map_err(|(line, problem)| format!("{}:{line}: {problem}", file.display()))
}

/// Lines `NAME=value`, `export NAME=value`, `# comment`; a value may stand in single quotes (as it is) or double quotes
/// (`\n`, `\"`, `\\`, `\$`); outside of them ` #` begins a comment. Values are never expanded.
fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut all = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |problem: String| (number + 1, problem);
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line.split_once('=').ok_or_else(|| at("expected NAME=value".to_owned()))?;
        let name = name.trim_end();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.') {
            return Err(at(format!("`{name}` is no name of a variable")));
        }
        all.insert(name.to_owned(), value_of(value.trim()).map_err(at)?);
    }
    Ok(all)
}

fn value_of(text: &str) -> Result<String, String> {
    let quote = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => quote,
        _ => return Ok(text.split(" #").next().unwrap_or_default().trim_end().to_owned()),
    };
    let mut value = String::new();
    let mut letters = text[1..].chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quote == '"' => match letters.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(other) => value.push(other),
                None => break,
            },
            letter if letter == quote => {
                let rest = letters.as_str().trim_start();
                let is_over = rest.is_empty() || rest.starts_with('#');
                return if is_over { Ok(value) } else { Err(format!("`{rest}` after the closing quote")) };
            }
            letter => value.push(letter),
        }
    }
    Err("the quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_passed_is_not_inherited() {
        let all = ["PATH", "LC_ALL", "LC_TIME", "HOME", "NOTIFY_SOCKET", "MY_KEY_1"];
        let all = || all.map(|name| (name.to_owned(), String::new())).into();
        let names = |passed: Option<&[String]>| inherited(all(), passed).into_keys().collect::<Vec<_>>();
        let some = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(None), ["HOME", "LC_ALL", "LC_TIME", "MY_KEY_1", "PATH"]);
        assert_eq!(names(Some(&some(&["*"]))), ["HOME", "LC_ALL", "LC_TIME", "MY_KEY_1", "PATH"]);
        assert_eq!(names(Some(&some(&["PATH", "LC_*"]))), ["LC_ALL", "LC_TIME", "PATH"]);
        assert_eq!(names(Some(&some(&["*KEY*", "NOTIFY_SOCKET"]))), ["MY_KEY_1"]);
        assert!(names(Some(&[])).is_empty());
    }

    #[test]
    fn all_forms_of_a_line_are_read() {
        let text =
            "# a comment\n\nA=1\nexport B = two words # said so\nC=\"x\\n\\\"y\\\" # z\"\nD='$raw \\n'\nE=\nF=a#b\r\n";
        let all = parse(text).unwrap();
        let expected =
            [("A", "1"), ("B", "two words"), ("C", "x\n\"y\" # z"), ("D", "$raw \\n"), ("E", ""), ("F", "a#b")];
        assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        assert_eq!(parse("A=1\nB").unwrap_err(), (2, "expected NAME=value".to_owned()));
        assert_eq!(parse("A B=1").unwrap_err(), (1, "`A B` is no name of a variable".to_owned()));
        assert_eq!(parse("A=\"x").unwrap_err().1, "the quote is not closed");
        assert_eq!(parse("A='x' y").unwrap_err().1, "`y` after the closing quote");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_variables(Path::new("/nowhere/.env")).unwrap_err();
        assert!(error.starts_with("cannot read `/nowhere/.env`: "), "{error}");
    }
}
