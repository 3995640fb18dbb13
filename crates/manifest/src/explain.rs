//! Pages: one for each key, made of the table, and one for each kind of mistake.

use crate::keys::shape::number;
use crate::keys::{self, Section, Shape};

macro_rules! pages {
    ($($code:literal),* $(,)?) => {
        /// Kinds of mistakes with their pages, by name.
        const PAGES: &[(&str, &str)] = &[$(($code, include_str!(concat!("pages/", $code, ".md")))),*];
    };
}

pages!(
    "address_taken",
    "after_circle",
    "bad_address",
    "bad_alias",
    "bad_header",
    "bad_host",
    "bad_key",
    "bad_name",
    "bad_path",
    "bad_place",
    "bad_sum",
    "bad_syntax",
    "bad_unit",
    "bad_variable",
    "contradiction",
    "duplicate_key",
    "either_or",
    "internal",
    "merge_key",
    "misplaced_key",
    "missing_key",
    "needs_quotes",
    "no_file",
    "no_profile",
    "no_unit",
    "no_value",
    "not_a_boolean",
    "not_a_number",
    "not_text",
    "not_yet",
    "older_form",
    "out_of_range",
    "overlay_orphan",
    "port_shared",
    "reserved_variable",
    "route_taken",
    "routes_needed",
    "rule_without_use",
    "secret_inline",
    "several_documents",
    "shell_syntax",
    "tab_indent",
    "too_big",
    "two_manifests",
    "unknown_key",
    "unknown_name",
    "unknown_word",
    "unset_variable",
    "wrong_type",
);

/// The page of a kind of mistake, such as `no_unit`: meaning, cause, remedy and an example, in Markdown.
#[must_use]
pub fn diagnostic_page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(name, _)| *name == code).map(|(_, page)| *page)
}

/// All kinds of mistakes, by name.
pub fn diagnostic_codes() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(name, _)| *name)
}

/// The page of a key or a section: `services.users.policy.timeout`, `services`, `gateway`, `manifest`.
#[must_use]
pub fn key_page(path: &str) -> Option<String> {
    if path == "manifest" {
        return Some(section_page("the manifest", &keys::mesh::ROOT));
    }
    let found = keys::find(path)?;
    let mut page = String::new();
    if let Some(key) = found.key.filter(|_| !found.path.ends_with("NAME") && !found.path.ends_with("PLACE")) {
        let state = if key.built { "honoured" } else { "not honoured by this version yet: refused as `not_yet`" };
        let default = if key.default.is_empty() { "none" } else { key.default };
        page = format!(
            "{}\n\n  meaning  {}\n  type     {}\n  default  {default}\n  example  {}\n  change   {}: {}\n  state    {state}\n",
            found.path,
            key.meaning,
            kind(key.shape),
            key.example,
            key.effect.word(),
            key.effect.meaning(),
        );
    }
    let entries = || found.shape.entries().and_then(|(_, of)| of.section());
    if let Some(section) = found.section().or_else(entries) {
        if !page.is_empty() {
            page.push('\n');
        }
        page.push_str(&section_page(&section.article(), section));
    }
    Some(page)
}

/// The paths of all keys, with `NAME` or `PLACE` where a free key stands.
#[must_use]
pub fn key_paths() -> Vec<String> {
    let mut paths = Vec::new();
    keys::each(&mut |path, _, _| paths.push(path.to_owned()));
    paths
}

fn section_page(title: &str, section: &Section) -> String {
    let mut page = format!("keys of {title}\n\n");
    let width = section.keys().map(|key| key.name.len()).max().unwrap_or(0);
    for key in section.keys() {
        let later = if key.built { "" } else { " (not yet)" };
        page.push_str(&format!("  {:width$}  {}{later}\n", key.name, key.meaning));
    }
    page
}

/// What a key takes, with its bounds.
fn kind(shape: &Shape) -> String {
    let time = |ms| synego_model::text::duration(std::time::Duration::from_millis(ms));
    match shape {
        Shape::Duration { min, max } => format!("a duration, {} to {}", time(*min), time(*max)),
        Shape::Size { min, max } => {
            format!("a size, {} to {}", synego_model::text::size(*min), synego_model::text::size(*max))
        }
        Shape::Flow { min, max } => {
            format!("a size a second, {}/s to {}/s", synego_model::text::size(*min), synego_model::text::size(*max))
        }
        Shape::Count { min, max, words } => {
            let words: String = words.iter().map(|word| format!("`{word}` or ")).collect();
            format!("{words}a number, {} to {}", number(*min), number(*max))
        }
        Shape::Word { .. } | Shape::Share(_) | Shape::Bind | Shape::Reach | Shape::Target | Shape::Place => {
            shape.expected()
        }
        Shape::List { of, max } => format!("a list of at most {}: each {}", number(*max as u64), kind(of)),
        Shape::Named { pair, .. } => format!("a mapping: `{pair}`"),
        Shape::Either(shapes) => shapes.iter().map(|shape| kind(shape)).collect::<Vec<_>>().join(", or "),
        Shape::Later(shape) => format!("{} (not yet)", kind(shape)),
        other => other.what(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_says_meaning_cause_and_remedy() {
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            for part in ["## Meaning\n", "## Cause\n", "## Remedy\n", "## Example\n", "```yaml\n"] {
                assert!(page.contains(part), "{code} lacks {part}");
            }
        }
    }

    #[test]
    fn the_page_of_a_key_comes_from_the_table() {
        let page = key_page("services.users.policy.timeout").unwrap_or_default();
        assert!(
            page.contains("services.NAME.policy.timeout")
                && page.contains("1ms to 1h")
                && page.contains("default  30s"),
            "{page}"
        );
        assert!(key_page("services").unwrap_or_default().contains("instances"));
        assert!(key_page("gateway.gzip").unwrap_or_default().contains("not_yet"));
        assert_eq!(key_page("services.users.frobnicate"), None);
    }

    #[test]
    fn every_path_has_a_page() {
        for path in key_paths() {
            assert!(key_page(&path).is_some_and(|page| !page.is_empty()), "{path}");
        }
    }
}
