//! `--watch`: redrawn in place on a terminal, elsewhere one line for each change.

use std::collections::BTreeMap;

use super::Screen;

/// What was drawn last.
#[derive(Debug, Default)]
pub(crate) struct Live {
    lines: usize,
    told: BTreeMap<String, String>,
}

impl Live {
    /// Replaces what stands on the terminal by `text`, cut to its height.
    pub(crate) fn redraw(&mut self, screen: &Screen, text: &str) {
        let lines: Vec<&str> = text.lines().take(screen.rows() - 1).collect();
        let up = if self.lines == 0 { String::new() } else { format!("\u{1b}[{}A", self.lines) };
        let body: String = lines.iter().map(|line| format!("{line}\u{1b}[K\n")).collect();
        screen.print(&format!("{up}\r{body}\u{1b}[J"));
        self.lines = lines.len();
    }

    /// The lines that are new or differ from those told before, and one for each name that went.
    pub(crate) fn changes(&mut self, rows: Vec<(String, String)>) -> Vec<String> {
        let mut told = Vec::new();
        let now: BTreeMap<String, String> = rows.iter().cloned().collect();
        for (name, line) in rows {
            if self.told.get(&name) != Some(&line) {
                told.push(line);
            }
        }
        told.extend(self.told.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{name}  removed")));
        self.told = now;
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let row = |name: &str, state: &str| (name.to_owned(), format!("{name}  {state}"));
        let mut live = Live::default();
        assert_eq!(live.changes(vec![row("a", "starting"), row("b", "ready")]), ["a  starting", "b  ready"]);
        assert_eq!(live.changes(vec![row("a", "ready"), row("b", "ready")]), ["a  ready"]);
        assert_eq!(live.changes(vec![row("a", "ready")]), ["b  removed"]);
    }
}
