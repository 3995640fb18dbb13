//! Older forms: accepted as they are, each with a line that shows the new form.

mod edge;

use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node, Span};

/// Rewrites what is left of older forms in a manifest's tree, and warns of each.
pub(crate) fn translate(tree: &mut Node, problems: &mut Problems) {
    if !matches!(tree.kind, Kind::Map(_)) {
        return;
    }
    let mut older = Older { tree, problems };
    older.nodes();
    older.edge();
    older.kernel();
}

pub(crate) struct Older<'a> {
    tree: &'a mut Node,
    problems: &'a mut Problems,
}

impl Older<'_> {
    /// `nodes` as a list of masters.
    fn nodes(&mut self) {
        let is_list = self.tree.get("nodes").is_some_and(|nodes| matches!(nodes.kind, Kind::List(_)));
        let named = self
            .tree
            .get("nodes")
            .is_some_and(|nodes| !nodes.items().is_empty() && nodes.items().iter().all(|node| node.text().is_some()));
        if !is_list || named {
            return;
        }
        let Some(entry) = self.take("nodes") else { return };
        let mut first = true;
        for node in entry.value.items() {
            let text = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
            let kind = text("type").unwrap_or_default();
            let extra = node.entries().iter().find(|entry| !matches!(entry.key.as_str(), "type" | "host" | "port"));
            if kind != "master" || extra.is_some() {
                let (span, what) = match extra {
                    Some(extra) if kind == "master" => {
                        (extra.span, format!("a node of the older form has no key `{}`", extra.key))
                    }
                    _ => (
                        node.get("type").map_or(node.span, |node| node.span),
                        format!("`{kind}` is no type of the older form"),
                    ),
                };
                let problem = Problem::new("older_form", what)
                    .expected("expected `type: master`, `host` and `port`")
                    .help("the new form names services: `services: { users: { run: node users.js } }`, and masters: `masters: { ingress: 3000 }`");
                self.problems.error(span, problem);
                continue;
            }
            let host = text("host").unwrap_or_else(|| "localhost".to_owned());
            let port_text = text("port").unwrap_or_else(|| "3000".to_owned());
            let port = port_text.parse::<u16>().ok().filter(|port| *port < u16::MAX - 1);
            let Some(port) = port else {
                let span = node.get("port").map_or(node.span, |node| node.span);
                let problem = Problem::new("not_a_number", format!("`{port_text}` is not a port"))
                    .expected("expected a number from 0 to 65,533")
                    .help("write `masters: { ingress: 3000 }`");
                self.problems.error(span, problem);
                continue;
            };
            // Port 0 takes a free one for each.
            let port_at = |offset: u16| if port == 0 { 0 } else { port + offset };
            let at = |offset: u16| format!("{host}:{}", port_at(offset));
            if first {
                first = false;
                // People ask it on the machine itself, wherever the rest of it listens.
                for (key, address) in [("ingress", at(0)), ("mesh", at(1)), ("admin", port_at(2).to_string())] {
                    self.put(&["masters", key], scalar(node.span, &address));
                }
                self.note(entry.span, "nodes", &format!("masters: {{ ingress: {} }}", at(0)));
            } else {
                self.join(node.span, &at(1));
            }
        }
    }

    /// One more master elsewhere.
    pub(crate) fn join(&mut self, span: Span, address: &str) {
        let item = scalar(span, address);
        let list = self.tree.entries_mut().and_then(|all| all.iter_mut().find(|entry| entry.key == "masters"));
        let list = list.and_then(|masters| masters.value.entries_mut()?.iter_mut().find(|entry| entry.key == "join"));
        match list.map(|entry| &mut entry.value.kind) {
            Some(Kind::List(items)) => items.push(item),
            _ => self.put(&["masters", "join"], Node::new(span, Kind::List(vec![item]))),
        }
    }

    /// The entry of a key, taken out.
    pub(crate) fn take(&mut self, key: &str) -> Option<Entry> {
        let entries = self.tree.entries_mut()?;
        let index = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(index))
    }

    /// The tree as it is now.
    pub(crate) fn tree(&self) -> &Node {
        self.tree
    }

    /// Puts a value at a path of keys; mappings on the way are made.
    pub(crate) fn put(&mut self, path: &[&str], value: Node) {
        let span = value.span;
        let mut node: &mut Node = self.tree;
        let Some((last, way)) = path.split_last() else { return };
        for key in way {
            let Some(entries) = node.entries_mut() else { return };
            let index = entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
                entries.push(Entry { key: (*key).to_owned(), span, value: Node::empty(span) });
                entries.len() - 1
            });
            let Some(entry) = entries.get_mut(index) else { return };
            node = &mut entry.value;
        }
        if let Some(entries) = node.entries_mut() {
            entries.push(Entry { key: (*last).to_owned(), span, value });
        }
    }

    /// Warns that `key` is an older form.
    pub(crate) fn note(&mut self, span: Span, key: &str, new: &str) {
        let problem = Problem::new("older_form", format!("`{key}` is an older form, still understood"))
            .expected("today it is written otherwise")
            .help(format!("write `{new}`; `synego init --from FILE` rewrites all of it"));
        self.problems.warn(span, problem);
    }

    /// Warns that `key` is an older form that needs no new one.
    pub(crate) fn dropped(&mut self, span: Span, key: &str, why: &str) {
        let problem = Problem::new("older_form", format!("`{key}` is an older form that is not needed any more"))
            .expected(why)
            .help("leave it out; `synego init --from FILE` rewrites the whole file");
        self.problems.warn(span, problem);
    }
}

/// A scalar that the user did not write so.
pub(crate) fn scalar(span: Span, text: &str) -> Node {
    Node::new(span, Kind::Text { text: text.to_owned(), plain: true })
}
