//! Checked conversion between what travels and the model, in both directions.
//!
//! Towards the wire nothing can fail: values are brought into the documented ranges. From the wire every mistake is
//! collected with its path before anything is refused, so that the other side learns all of them at once.

use std::fmt;
use std::time::Duration;

pub mod access;
pub mod attach;
pub mod identity;
pub mod output;
pub mod policy;
pub mod report;
pub mod table;
pub mod words;

/// One broken range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, such as `listeners[0].address`.
    pub path: String,
    /// What is wrong, the value included.
    pub message: String,
}

/// Every broken range of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// At least one, in the order of the message's fields.
    pub mistakes: Vec<Mistake>,
}

impl Invalid {
    /// A refusal for one mistake.
    #[must_use]
    pub fn one(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { mistakes: vec![Mistake { path: path.into(), message: message.into() }] }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", mistake.path, mistake.message)?;
        }
        Ok(())
    }
}

/// Most mistakes that are collected of one message: enough for people, bounded against hostile input.
const MAX_MISTAKES: usize = 100;

/// Longest part of a foreign value that a mistake repeats, in characters.
const MAX_SHOWN: usize = 80;

/// The mistakes found so far in one message.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Mistake>);

impl Problems {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < MAX_MISTAKES {
            self.0.push(Mistake { path: path.into(), message: message.into() });
        }
    }

    /// The value, unless there was a mistake.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Invalid> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ if self.0.is_empty() => Err(Invalid::one("message", "cannot be read")),
            _ => Err(Invalid { mistakes: self.0 }),
        }
    }

    /// A value parsed from text by its own grammar.
    pub(crate) fn parse<T>(&mut self, path: &str, text: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        text.parse().map_err(|error: T::Err| self.add(path, cut(&error.to_string()))).ok()
    }

    /// Text of at most `max` bytes.
    pub(crate) fn text(&mut self, path: &str, text: &str, max: usize) -> String {
        if text.len() > max {
            self.add(path, format!("has {} bytes, at most {max} are allowed", text.len()));
        }
        text.to_owned()
    }

    /// A number from `min` to `max`.
    pub(crate) fn range(&mut self, path: &str, value: u32, min: u32, max: u32) -> u32 {
        if !(min..=max).contains(&value) {
            self.add(path, format!("is {value}, expected {min} to {max}"));
        }
        value
    }

    /// A number from 0 to 1; NaN is none.
    pub(crate) fn share(&mut self, path: &str, value: f64) -> f64 {
        if !(0.0..=1.0).contains(&value) {
            self.add(path, format!("is {value}, expected 0 to 1"));
        }
        value
    }

    /// A number of 0 or more that is finite.
    pub(crate) fn amount(&mut self, path: &str, value: f64) -> f64 {
        if !(value.is_finite() && value >= 0.0) {
            self.add(path, format!("is {value}, expected 0 or more"));
        }
        value
    }

    /// At most `max` entries.
    pub(crate) fn count(&mut self, path: &str, count: usize, min: usize, max: usize) -> bool {
        let fits = (min..=max).contains(&count);
        if !fits {
            self.add(path, format!("has {count} entries, expected {min} to {max}"));
        }
        fits
    }
}

/// Text cut to what a mistake may repeat, so that a refusal never grows with hostile input.
fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN * 2) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// `outer.inner`, or `inner` at the top.
pub(crate) fn join(outer: &str, inner: &str) -> String {
    if outer.is_empty() { inner.to_owned() } else { format!("{outer}.{inner}") }
}

/// Whole milliseconds, at most what the field holds.
pub(crate) fn ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// A duration of milliseconds.
pub(crate) fn from_ms(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

/// Gives a checking function (`fn(&Message, path, &mut Problems) -> Option<Value>`) its `TryFrom`.
macro_rules! checked {
    ($($message:ty => $value:ty: $check:path;)*) => {$(
        impl TryFrom<&$message> for $value {
            type Error = $crate::convert::Invalid;
            fn try_from(message: &$message) -> Result<Self, Self::Error> {
                let mut problems = $crate::convert::Problems::default();
                let value = $check(message, "", &mut problems);
                problems.finish(value)
            }
        }
    )*};
}
pub(crate) use checked;
