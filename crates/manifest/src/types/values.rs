//! Values that a file says as text, or in one of several shapes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// A duration as text; checked before.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(with = "String")]
pub(crate) struct Time(pub(crate) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::value::duration(&text).map(Self).ok_or_else(|| serde::de::Error::custom("no duration"))
    }
}

/// A size, or a size a second, as text; checked before.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(with = "String")]
pub(crate) struct Bytes(pub(crate) u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let text = text.strip_suffix("/s").unwrap_or(&text);
        crate::value::size(text).map(Self).ok_or_else(|| serde::de::Error::custom("no size"))
    }
}

/// A share as text; checked before.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(with = "String")]
pub(crate) struct Percent(pub(crate) u32);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::value::percent(&text).map(Self).ok_or_else(|| serde::de::Error::custom("no share"))
    }
}

/// A number of cores as text, in thousandths; checked before.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(with = "f64")]
pub(crate) struct MilliCores(pub(crate) u32);

impl<'de> Deserialize<'de> for MilliCores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::value::milli_cores(&text).map(Self).ok_or_else(|| serde::de::Error::custom("no number of cores"))
    }
}

/// A number, or a word such as `auto` or `cores`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum NumberOr {
    /// The number.
    Number(u32),
    /// The word.
    Word(#[expect(dead_code, reason = "that it is a word says all; here for the schema")] String),
}

impl NumberOr {
    /// The number; `None` for a word.
    pub(crate) fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Word(_) => None,
        }
    }
}

/// A mapping, or `false`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OrOff<T> {
    /// Only `false` passes the checks.
    Off(#[expect(dead_code, reason = "always false; here for the schema")] bool),
    /// The mapping.
    On(T),
}

/// One text or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Many(texts) => texts.clone(),
        }
    }
}
