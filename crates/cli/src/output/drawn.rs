//! Lines that stand on a terminal and are drawn again: never wrapped when they are drawn, and found again when the terminal
//! became narrower since.

use unicode_width::UnicodeWidthChar as _;

/// The lines that were drawn last, by their widths.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    widths: Vec<usize>,
}

impl Drawn {
    /// What brings the cursor to the first of them, on a terminal of `columns`.
    pub(crate) fn up(&self, columns: usize) -> String {
        let rows: usize = self.widths.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        if rows == 0 { String::new() } else { format!("\u{1b}[{rows}A\r") }
    }

    /// The lines of `text`, at most `rows` of them, each cut to `columns`; they are the drawn ones from now on.
    pub(crate) fn take(&mut self, text: &str, columns: usize, rows: usize) -> Vec<String> {
        let lines: Vec<(String, usize)> = text.lines().take(rows).map(|line| cut(line, columns)).collect();
        self.widths = lines.iter().map(|(_, width)| *width).collect();
        lines.into_iter().map(|(line, _)| line).collect()
    }
}

/// `line` in at most `columns` columns, and how many it takes. Escape sequences take none and are kept.
fn cut(line: &str, columns: usize) -> (String, usize) {
    let (mut text, mut width, mut is_escape) = (String::with_capacity(line.len()), 0, false);
    for c in line.chars() {
        match c {
            '\u{1b}' => is_escape = true,
            c if is_escape => is_escape = !c.is_ascii_alphabetic(),
            c => {
                let wide = c.width().unwrap_or(0);
                if width + wide > columns {
                    // What follows may still end a colour.
                    continue;
                }
                width += wide;
            }
        }
        text.push(c);
    }
    (text, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it_and_its_colour_still_ends() {
        assert_eq!(cut("\u{1b}[31mabcdef\u{1b}[0m", 4), ("\u{1b}[31mabcd\u{1b}[0m".to_owned(), 4));
        assert_eq!(cut("日本語", 5), ("日本".to_owned(), 4));
    }

    #[test]
    fn lines_that_wrapped_since_are_counted_as_the_rows_they_take() {
        let mut drawn = Drawn::default();
        assert_eq!(drawn.up(80), "");
        drawn.take(&format!("{}\n\nshort\n", "x".repeat(100)), 100, 10);
        assert_eq!(drawn.up(100), "\u{1b}[3A\r");
        assert_eq!(drawn.up(40), "\u{1b}[5A\r");
    }
}
