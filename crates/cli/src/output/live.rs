//! `--watch`: redrawn in place on a terminal, elsewhere one line for each change.

use std::collections::BTreeMap;

use super::Screen;
use super::drawn::Drawn;
use super::screen::size;

/// What was drawn last.
#[derive(Debug, Default)]
pub(crate) struct Live {
    drawn: Drawn,
    told: BTreeMap<String, String>,
}

impl Live {
    /// Replaces what stands on the terminal by `text`, cut to its height and width.
    pub(crate) fn redraw(&mut self, screen: &Screen, text: &str) {
        let (columns, rows) = size();
        let up = self.drawn.up(columns);
        let lines = self.drawn.take(text, columns, rows.saturating_sub(1));
        let body: String = lines.iter().map(|line| format!("{line}\u{1b}[K\n")).collect();
        screen.print(&format!("{up}{body}\u{1b}[J"));
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
