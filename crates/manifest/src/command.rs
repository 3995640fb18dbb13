//! Commands: text split into a program and its arguments as a shell would, without being one.

use crate::problems::{Problem, Problems};
use crate::tree::{Kind, Node, Span};

/// A word of a command, and where it begins: characters from the start of the text.
struct Word {
    text: String,
    at: usize,
}

/// A sign that only a shell understands: where it stands, in characters, and what it is.
struct Sign {
    at: usize,
    text: String,
}

/// Splits the command of `key`; `None` after a mistake, which has been reported.
pub(crate) fn read(node: &Node, key: &str, problems: &mut Problems) -> Option<Vec<String>> {
    match &node.kind {
        Kind::List(items) => {
            if items.is_empty() || items.first().and_then(Node::text).is_some_and(str::is_empty) {
                problems.error(node.span, no_program(key));
                return None;
            }
            items.iter().map(|item| item.text().map(str::to_owned)).collect()
        }
        Kind::Text { text, plain } => match split(text) {
            Ok(words) if words.is_empty() => {
                problems.error(node.span, no_program(key));
                None
            }
            Ok(words) => {
                if let Some(first) = words.first().filter(|first| is_assignment(&first.text)) {
                    let rest: Vec<&str> = words.iter().skip(1).map(|word| word.text.as_str()).collect();
                    let span = place(node.span, *plain, first.at, first.text.chars().count());
                    problems.error(span, assignment(key, &first.text, &rest.join(" ")));
                    return None;
                }
                Some(words.into_iter().map(|word| word.text).collect())
            }
            Err(Refused::Sign(sign)) => {
                let span = place(node.span, *plain, sign.at, sign.text.chars().count());
                problems.error(span, shell(key, &sign.text, text));
                None
            }
            Err(Refused::Open(at, quote)) => {
                let problem = Problem::new("shell_syntax", format!("a quote in `{key}` is not closed"))
                    .expected(format!("expected a closing `{quote}`"))
                    .help("a list says each argument by itself: `[node, server.js]`");
                problems.error(place(node.span, *plain, at, 1), problem);
                None
            }
        },
        _ => None,
    }
}

/// The place of a part of a scalar's text. Inside quotes it is one further; text over several lines is marked whole.
fn place(span: Span, plain: bool, at: usize, width: usize) -> Span {
    let at = at + usize::from(!plain);
    if at + width <= usize::try_from(span.width).unwrap_or(0) { span.part(at, width) } else { span }
}

fn no_program(key: &str) -> Problem {
    Problem::new("no_value", format!("`{key}` names no program"))
        .expected("expected a program and its arguments")
        .help(format!("write `{key}: node server.js`"))
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| crate::long::is_variable(name))
}

fn assignment(key: &str, word: &str, rest: &str) -> Problem {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    Problem::new("shell_syntax", format!("`{key}` starts one program, without a shell"))
        .expected(format!("`{name}=…` before a program is shell syntax"))
        .help(format!("write `env: {{ {name}: {} }}` and `{key}: {rest}`", crate::tree::quoted(value, false)))
}

fn shell(key: &str, sign: &str, text: &str) -> Problem {
    let meant = "if a shell is meant, `".to_owned() + key + ": [sh, -c, \"…\"]`";
    let help = match text.split_once(sign).map(|(before, after)| (before.trim(), after.trim())) {
        Some((before, after)) if sign == "&&" && folder(before).is_some() => {
            format!("write `cwd: {}` and `{key}: {after}`; or, {meant}", folder(before).unwrap_or_default())
        }
        Some((before, after)) if sign == "&&" && key == "run" && !after.contains("&&") => {
            format!("write `build: {before}` and `run: {after}`; or, {meant}")
        }
        Some((before, "")) if sign == "&" => {
            format!("write `{key}: {before}`: it runs in the background by itself; or, {meant}")
        }
        _ if sign == "$PORT" || sign == "${PORT}" => {
            format!("the process reads `PORT` from its environment; {meant}")
        }
        _ if sign.starts_with('$') && sign.len() > 1 && !sign.starts_with("$(") => {
            format!("`${{{}}}` is filled in from the environment of `synego`; {meant}", sign.trim_start_matches('$'))
        }
        Some((before, _)) if sign.contains('>') => {
            format!("write `{key}: {before}`: its output is kept, see `synego logs`; or, {meant}")
        }
        _ => meant,
    };
    Problem::new("shell_syntax", format!("`{key}` starts one program, without a shell"))
        .expected(format!("`{sign}` is shell syntax"))
        .help(help)
}

/// The folder of `cd FOLDER`.
fn folder(command: &str) -> Option<&str> {
    command
        .strip_prefix("cd ")
        .map(str::trim)
        .filter(|folder| !folder.is_empty() && !folder.contains(char::is_whitespace))
}

enum Refused {
    Sign(Sign),
    Open(usize, char),
}

/// Splits at blanks; quotes hold together, a backslash keeps the next sign.
fn split(text: &str) -> Result<Vec<Word>, Refused> {
    let chars: Vec<char> = text.chars().collect();
    let mut words: Vec<Word> = Vec::new();
    let mut open: Option<Word> = None;
    let mut index = 0;
    while let Some(c) = chars.get(index).copied() {
        let next = chars.get(index + 1).copied();
        if c.is_whitespace() {
            words.extend(open.take());
            index += 1;
            continue;
        }
        if let Some(sign) = sign(&chars, index) {
            return Err(Refused::Sign(Sign { at: index, text: sign }));
        }
        let word = open.get_or_insert_with(|| Word { text: String::new(), at: index });
        match c {
            '\'' | '"' => {
                let start = index;
                index += 1;
                loop {
                    match chars.get(index).copied() {
                        None => return Err(Refused::Open(start, c)),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' && matches!(chars.get(index + 1), Some('"' | '\\' | '$' | '`')) => {
                            index += 1;
                            word.text.extend(chars.get(index));
                        }
                        Some(other) => word.text.push(other),
                    }
                    index += 1;
                }
            }
            '\\' if next.is_some() => {
                word.text.extend(next);
                index += 1;
            }
            other => word.text.push(other),
        }
        index += 1;
    }
    words.extend(open);
    Ok(words)
}

/// What a shell would act on at `index`.
fn sign(chars: &[char], index: usize) -> Option<String> {
    let c = chars.get(index).copied()?;
    let next = chars.get(index + 1).copied();
    let two = |second: char| next == Some(second);
    match c {
        '&' if two('&') => Some("&&".into()),
        '|' if two('|') => Some("||".into()),
        '>' if two('>') => Some(">>".into()),
        '<' if two('<') => Some("<<".into()),
        '&' | '|' | ';' | '>' | '<' | '`' => Some(c.to_string()),
        '$' if two('(') => Some("$(".into()),
        '$' => {
            let name: String =
                chars.get(index + 1..)?.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').collect();
            crate::long::is_variable(&name).then(|| format!("${name}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        split(text).ok().map(|words| words.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn text_is_split_as_a_shell_would() {
        assert_eq!(words("node server.js"), Some(vec!["node".into(), "server.js".into()]));
        assert_eq!(
            words("a 'b c' \"d \\\" e\"f g\\ h ''"),
            Some(["a", "b c", "d \" ef", "g h", ""].map(String::from).to_vec())
        );
        assert_eq!(words("  "), Some(vec![]));
        assert_eq!(words("sh -c 'a && b > $C'"), Some(vec!["sh".into(), "-c".into(), "a && b > $C".into()]));
    }

    #[test]
    fn signs_of_a_shell_are_found_outside_quotes() {
        for (text, at, found) in [
            ("cd web && npm start", 7, "&&"),
            ("a | b", 2, "|"),
            ("a;b", 1, ";"),
            ("a >> b", 2, ">>"),
            ("a --p $PORT", 6, "$PORT"),
            ("a $(b)", 2, "$("),
        ] {
            assert!(matches!(split(text), Err(Refused::Sign(sign)) if sign.at == at && sign.text == found), "{text}");
        }
        assert!(matches!(split("a 'b"), Err(Refused::Open(2, '\''))));
        assert!(split("costs 5$ ok").is_ok());
    }
}
