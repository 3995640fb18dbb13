//! Passwords that stand in the file.

use crate::mask;
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node};

/// Warns of passwords in URLs; looked for before variables are filled, since what the environment holds is no mistake.
pub(crate) fn inline(tree: &Node, mesh: &str, problems: &mut Problems) {
    for resource in tree.get("resources").map(Node::entries).unwrap_or_default() {
        if let Some(url) = resource.value.get("url") {
            warn(url, &resource.key, mesh, problems);
        }
    }
    let services = tree.get("services").map(Node::entries).unwrap_or_default();
    let owners = services.iter().chain(tree.entry("defaults"));
    for variable in owners.flat_map(|owner| owner.value.get("env").map(Node::entries).unwrap_or_default()) {
        let name = variable_secret(variable);
        warn(&variable.value, &name, mesh, problems);
    }
}

fn variable_secret(variable: &Entry) -> String {
    let name = synego_model::name::nearest_name(&variable.key).unwrap_or_else(|| "db".into());
    name.trim_end_matches("-url").to_owned()
}

fn warn(node: &Node, name: &str, mesh: &str, problems: &mut Problems) {
    let Kind::Text { text, plain } = &node.kind else { return };
    let Some(range) = mask::password(text) else { return };
    let before = text.get(..range.start).unwrap_or_default();
    // The drawing shows the mask, so the marks have its width.
    let span = node.span.part(before.chars().count() + usize::from(!plain), mask::MASK.len());
    let problem = Problem::new("secret_inline", "a password stands in the file").expected("expected `${secret:NAME}`").help(format!(
        "`secrets: {{ {name}: {{ file: /etc/{mesh}/{name} }} }}`, then `{before}${{secret:{name}}}@…`; `check --strict` refuses it"
    ));
    problems.warn(span, problem);
}
