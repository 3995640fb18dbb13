//! What commands print: results to stdout, all else to stderr.

pub(crate) mod amount;
pub(crate) mod answer;
pub(crate) mod drawn;
pub(crate) mod line;
pub(crate) mod live;
pub(crate) mod paint;
pub(crate) mod screen;
pub(crate) mod table;
pub(crate) mod time;

pub(crate) use answer::Answer;
pub(crate) use paint::Tone;
pub(crate) use screen::Screen;
pub(crate) use table::{Cell, Column, Table};

/// Text of others made harmless for a terminal: escape sequences and control characters are shown, not obeyed.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_print_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\tc\r"), "a\u{fffd}[2Jb c\u{fffd}");
    }
}
