//! Colour and marks: they never carry a meaning alone, a word always stands beside.

use anstyle::{AnsiColor, Style};
use synego_wire::pb::InstanceState;

/// What a piece of text is, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Doubtful.
    Warn,
    /// Wrong.
    Bad,
    /// Beside the point.
    Dim,
    /// The point.
    Strong,
}

/// How one stream is drawn on: in colour or not, with Unicode or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    /// Whether escape sequences for colour are written.
    pub(crate) colour: bool,
    /// Whether the locale is UTF-8.
    pub(crate) unicode: bool,
}

impl Paint {
    /// Neither colour nor Unicode.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colour: false, unicode: false }
    }

    /// `text` in the colour of `tone`.
    pub(crate) fn tone(self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let style = match tone {
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Busy => AnsiColor::Cyan.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Dim => Style::new().dimmed(),
            Tone::Strong => Style::new().bold(),
        };
        format!("{}{text}{}", style.render(), style.render_reset())
    }

    /// `text` with the signs that only UTF-8 has replaced where the locale has none.
    pub(crate) fn text(self, text: &str) -> String {
        if self.unicode || text.is_ascii() {
            return text.to_owned();
        }
        let mut ascii = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '→' => ascii.push_str("->"),
                '–' | '—' => ascii.push('-'),
                '·' => ascii.push('|'),
                '…' => ascii.push_str(".."),
                '×' => ascii.push('x'),
                '≤' => ascii.push_str("<="),
                '●' => ascii.push('*'),
                '◐' => ascii.push('~'),
                '◑' => ascii.push('!'),
                '○' => ascii.push('o'),
                '✓' => ascii.push('+'),
                '✗' => ascii.push('x'),
                c if c.is_ascii() => ascii.push(c),
                _ => ascii.push('?'),
            }
        }
        ascii
    }
}

/// The word of a state.
pub(crate) fn state_word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Unspecified => "unknown",
        InstanceState::Starting => "starting",
        InstanceState::Ready => "ready",
        InstanceState::Degraded => "degraded",
        InstanceState::Unhealthy => "unhealthy",
        InstanceState::Draining => "draining",
        InstanceState::Gone => "gone",
    }
}

/// The mark beside the word of a state.
pub(crate) fn state_mark(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Ready => "●",
        InstanceState::Starting | InstanceState::Draining => "◐",
        InstanceState::Degraded => "◑",
        InstanceState::Unhealthy | InstanceState::Gone | InstanceState::Unspecified => "○",
    }
}

/// The colour of a state.
pub(crate) fn state_tone(state: InstanceState) -> Tone {
    match state {
        InstanceState::Ready => Tone::Good,
        InstanceState::Starting | InstanceState::Draining => Tone::Busy,
        InstanceState::Degraded => Tone::Warn,
        InstanceState::Unhealthy => Tone::Bad,
        InstanceState::Gone | InstanceState::Unspecified => Tone::Dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_utf8_every_sign_has_an_ascii_form() {
        assert_eq!(Paint::plain().text("● ready · 1 → 2, 8 ms … ü"), "* ready | 1 -> 2, 8 ms .. ?");
    }

    #[test]
    fn without_colour_no_escape_is_written() {
        assert_eq!(Paint::plain().tone(Tone::Bad, "gone"), "gone");
        let colour = Paint { colour: true, unicode: true };
        assert!(colour.tone(Tone::Bad, "gone").starts_with("\u{1b}["));
    }
}
