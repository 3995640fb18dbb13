//! One line of a service's output as people see it.

use synego_wire::pb;

use super::paint::Paint;
use super::table::lose_middle;
use super::time::Clock;
use super::{Tone, harmless};

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Level {
    /// The finest
    Trace,
    /// For who looks for a mistake
    Debug,
    /// What happened
    Info,
    /// What may become a failure
    Warn,
    /// What failed
    Error,
}

impl Level {
    /// Of the admin API.
    pub(crate) fn of(level: pb::LogLevel) -> Self {
        match level {
            pb::LogLevel::Trace => Self::Trace,
            pb::LogLevel::Debug => Self::Debug,
            pb::LogLevel::Unspecified | pb::LogLevel::Info => Self::Info,
            pb::LogLevel::Warn => Self::Warn,
            pb::LogLevel::Error => Self::Error,
        }
    }

    /// The same for the admin API.
    pub(crate) fn told(self) -> pb::LogLevel {
        match self {
            Self::Trace => pb::LogLevel::Trace,
            Self::Debug => pb::LogLevel::Debug,
            Self::Info => pb::LogLevel::Info,
            Self::Warn => pb::LogLevel::Warn,
            Self::Error => pb::LogLevel::Error,
        }
    }

    /// The word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    fn tone(self) -> Option<Tone> {
        match self {
            Self::Trace | Self::Debug => Some(Tone::Dim),
            Self::Info => None,
            Self::Warn => Some(Tone::Warn),
            Self::Error => Some(Tone::Bad),
        }
    }
}

/// How lines are drawn.
#[derive(Debug, Clone)]
pub(crate) struct Style<'a> {
    /// Colour and signs.
    pub(crate) paint: Paint,
    /// How times are shown.
    pub(crate) clock: &'a Clock,
    /// Columns for the instance.
    pub(crate) width: usize,
}

/// `14:03:07.123 users-1   info   listening on 41203  req=8f2c41d0`, with a newline. `build`: a build printed it.
pub(crate) fn draw(style: &Style<'_>, now: u64, instance: &str, line: &pb::OutputLine, build: bool) -> String {
    let paint = style.paint;
    let at = style.clock.exact(line.unix_us / 1000, now);
    let who = lose_middle(&harmless(instance), style.width, paint);
    let level = Level::of(line.level());
    let word = format!("{:<5}", if build { "build" } else { level.word() });
    let tone = if build { Some(Tone::Busy) } else { level.tone() };
    let mut text = format!("{} {who:<width$}  ", paint.tone(Tone::Dim, &at), width = style.width);
    text.push_str(&tone.map_or_else(|| word.clone(), |tone| paint.tone(tone, &word)));
    text.push_str("  ");
    text.push_str(&harmless(&line.message));
    let fields = fields(line);
    if !fields.is_empty() {
        text.push_str("  ");
        text.push_str(&paint.tone(Tone::Dim, &fields.join(" ")));
    }
    let mut text = text.trim_end().to_owned();
    text.push('\n');
    text
}

fn fields(line: &pb::OutputLine) -> Vec<String> {
    let mut fields = Vec::new();
    for (name, id, shown) in [("req", &line.request_id, 16), ("trace", &line.trace_id, 8)] {
        if !id.is_empty() {
            fields.push(harmless(&format!("{name}={}", id.chars().take(shown).collect::<String>())));
        }
    }
    let more: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line.fields_json).unwrap_or_default();
    // Who it was stands in front already, and the request as well; of an exchange the message says the most.
    let said: &[&str] = match line.kind() {
        pb::LineKind::Access => &["method", "path", "status", "span_id", "complete"],
        pb::LineKind::Mesh => &["target"],
        pb::LineKind::Output | pb::LineKind::Unspecified => &["service", "instance"],
    };
    for (name, value) in more.into_iter().filter(|(name, _)| !said.contains(&name.as_str())) {
        fields.push(harmless(&format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_when_who_how_bad_what_and_its_fields() {
        let clock = Clock::new(true, false);
        let style = Style { paint: Paint { colour: false, unicode: true }, clock: &clock, width: 9 };
        let line = pb::OutputLine {
            unix_us: 1_123_000,
            level: pb::LogLevel::Warn.into(),
            message: "slow\u{1b}[31m".into(),
            request_id: "8f2c41d0a9e34b71ff".into(),
            fields_json: r#"{"user":7,"path":"/x"}"#.into(),
            ..Default::default()
        };
        assert_eq!(
            draw(&style, 2_000, "orders-1", &line, false),
            "00:00:01.123 orders-1   warn   slow\u{fffd}[31m  req=8f2c41d0a9e34b71 user=7 path=/x\n"
        );
        assert!(draw(&style, 2_000, "orders-1", &pb::OutputLine::default(), true).ends_with("  build\n"));
    }
}
