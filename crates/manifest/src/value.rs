//! Scalars: what the text of a value means, and what to say when it means nothing.

mod unit;

use std::time::Duration;

use synego_model::text::nearest;
use synego_model::{HostPattern, Place, text};

use crate::keys::Shape;
use crate::keys::shape::{number, words, words_or};
use crate::long::{bad_name, bad_place};
use crate::problems::Problem;
use unit::{bad_unit, unit};

pub(crate) use unit::{duration, milli_cores, percent, size};

/// What stands before the words of a message: the key, its text, whether it was in quotes, and the text in short.
pub(crate) struct Said<'a> {
    /// The key.
    pub(crate) key: &'a str,
    /// Its text.
    pub(crate) text: &'a str,
    /// Without quotes.
    pub(crate) plain: bool,
    /// How the key is written, from the table.
    pub(crate) example: &'a str,
    /// What else may stand here: ``, or a mapping`` of a key that takes both.
    pub(crate) beside: &'a str,
}

/// A scalar that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// Text in its canonical form.
    Text(String),
}

/// Understands `said` as `shape`.
pub(crate) fn scalar(said: &Said<'_>, shape: &Shape) -> Result<Scalar, Problem> {
    let same = || Ok(Scalar::Text(said.text.to_owned()));
    match shape {
        Shape::Bool => boolean(said).map(Scalar::Bool),
        Shape::Off => match said.text {
            "false" if said.plain => Ok(Scalar::Bool(false)),
            _ => Err(not_a_boolean(said, "`false`")),
        },
        Shape::Name => {
            if synego_model::name::is_name(said.text) {
                same()
            } else {
                Err(bad_name(said.text))
            }
        }
        Shape::Word { what, built, later } => word(said, what, built, later),
        Shape::Count { min, max, words } => count(said, *min, *max, words),
        Shape::Cores => said
            .text
            .parse::<f64>()
            .ok()
            .filter(|cores| *cores > 0.0 && *cores <= 1_024.0)
            .map_or_else(|| Err(not_a_number(said, "a number of cores", "a number such as `0.5`")), |_| same()),
        Shape::Duration { min, max } => {
            let ms = unit(said, "duration")?;
            bounded(said, ms, (*min, *max), |ms| text::duration(Duration::from_millis(ms)))?;
            same()
        }
        Shape::Size { min, max } => {
            let bytes = unit(said, "size")?;
            bounded(said, bytes, (*min, *max), text::size)?;
            same()
        }
        Shape::Flow { min, max } => {
            let Some(size) = said.text.strip_suffix("/s") else { return Err(no_rate(said, "1KiB/s")) };
            let bytes = unit(&Said { text: size, ..*said }, "size")?;
            bounded(said, bytes, (*min, *max), |bytes| format!("{}/s", text::size(bytes)))?;
            same()
        }
        Shape::Rate => match said.text.rsplit_once('/') {
            Some((count, "s" | "m" | "h")) if count.parse::<u64>().is_ok_and(|count| count > 0) => same(),
            Some((_, other)) if !matches!(other, "s" | "m" | "h") => {
                Err(bad_unit(said, other, "rate", "/s, /m or /h", None)
                    .help("a rate is a count in a second, a minute or an hour: `100/s`"))
            }
            _ => Err(no_rate(said, "100/s")),
        },
        Shape::Share(extra) if extra.contains(&said.text) => same(),
        Shape::Share(extra) => share(said, extra).map(|_| Scalar::Text(said.text.to_owned())),
        Shape::Place | Shape::RoutePath => match said.text.parse::<Place>() {
            Ok(_) => same(),
            Err(bad) => Err(bad_place(said.text, &bad)),
        },
        Shape::UrlPath => path(said),
        Shape::Host => match said.text.parse::<HostPattern>() {
            Ok(HostPattern::Exact(_) | HostPattern::Suffix(_)) => Ok(Scalar::Text(said.text.to_ascii_lowercase())),
            _ => Err(Problem::new("bad_host", format!("`{}` is not a host name", said.text))
                .expected("expected such as `shop.example.com` or `\"*.example.com\"`")
                .nearest(bare_host(said.text))
                .help("a host has no scheme, port or path")),
        },
        Shape::Method => method(said),
        Shape::Url => match said.text.split_once("://") {
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => same(),
            _ => Err(Problem::new("bad_address", format!("`{}` is not a URL", said.text))
                .expected("expected `scheme://host:port/…`")
                .help(format!("write `{}`", said.example))),
        },
        Shape::Cidr => crate::address::cidr(said.text).map(Scalar::Text),
        Shape::Bind => crate::address::bind(said.text).map(Scalar::Text),
        Shape::Reach => crate::address::reach(said.text).map(Scalar::Text),
        Shape::Target => crate::address::target(said.text).map(Scalar::Text),
        Shape::Text("`true` or a name") if said.text.is_empty() => Err(empty(said)),
        Shape::Path(_) | Shape::Pattern if said.text.is_empty() => Err(empty(said)),
        Shape::Path(what) if said.text.contains('\0') || said.text.contains('\n') => {
            Err(Problem::new("bad_path", format!("this is no {what}"))
                .expected("expected a path on one line")
                .help(format!("write `{}`", said.example)))
        }
        _ => same(),
    }
}

fn empty(said: &Said<'_>) -> Problem {
    Problem::new("no_value", format!("`{}` is empty", said.key))
        .expected("expected text")
        .help(format!("write `{}`, or leave the key out", said.example))
}

fn not_a_boolean(said: &Said<'_>, expected: &str) -> Problem {
    let meant = match said.text.to_ascii_lowercase().as_str() {
        _ if expected == "`true`" => "true",
        "no" | "off" | "false" | "n" | "0" | "never" | "none" => "false",
        _ => "true",
    };
    let text = if said.plain { format!("`{}`", said.text) } else { format!("`\"{}\"`", said.text) };
    let meant = if expected == "`false`" { "false" } else { meant };
    Problem::new("not_a_boolean", format!("{text} is text, not a boolean"))
        .expected(format!("expected {expected}{}", said.beside))
        .help(format!("write `{}: {meant}`", said.key))
}

fn boolean(said: &Said<'_>) -> Result<bool, Problem> {
    match said.text {
        "true" if said.plain => Ok(true),
        "false" if said.plain => Ok(false),
        _ => Err(not_a_boolean(said, "`true` or `false`")),
    }
}

fn word(said: &Said<'_>, what: &str, built: &[&'static str], later: &[&'static str]) -> Result<Scalar, Problem> {
    if built.contains(&said.text) {
        return Ok(Scalar::Text(said.text.to_owned()));
    }
    if later.contains(&said.text) {
        return Err(Problem::new(
            "not_yet",
            format!("`{}: {}` is not honoured by this version yet", said.key, said.text),
        )
        .expected(format!("expected {}", words(built.iter())))
        .help("what is not honoured is refused, never ignored"));
    }
    if built == ["true"] {
        return Err(match said.text {
            "false" => Problem::new("unknown_word", format!("`{}: false` says nothing", said.key))
                .expected("expected `true`, or another probe")
                .help("leave it out"),
            _ => not_a_boolean(said, "`true`"),
        });
    }
    let all = built.iter().chain(later.iter());
    let close = nearest(&said.text.to_ascii_lowercase(), all.clone().copied());
    Err(Problem::new("unknown_word", format!("`{}` is no {what}", said.text))
        .expected(format!("expected {}{}", words(all), said.beside))
        .nearest(close)
        .help(match close {
            Some(close) => format!("write `{}: {close}`", said.key),
            None => format!("write `{}`", said.example),
        }))
}

fn not_a_number(said: &Said<'_>, what: &str, expected: &str) -> Problem {
    Problem::new("not_a_number", format!("`{}` is not {what}", said.text))
        .expected(format!("expected {expected}"))
        .help(format!("write `{}`", said.example))
}

fn count(said: &Said<'_>, min: u64, max: u64, extra: &[&'static str]) -> Result<Scalar, Problem> {
    if extra.contains(&said.text) {
        return Ok(Scalar::Text(said.text.to_owned()));
    }
    let shape = words_or(extra, &format!("a number from {} to {}", number(min), number(max)));
    let digits = !said.text.is_empty() && said.text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(not_a_number(said, "a whole number", &shape));
    }
    match said.text.parse::<u64>() {
        Ok(value) if (min..=max).contains(&value) => Ok(Scalar::Number(value)),
        _ => Err(Problem::new("out_of_range", format!("`{}` is {}", said.key, said.text))
            .expected(format!("expected {shape}"))
            .help(format!("write `{}`", said.example))),
    }
}

fn bounded(said: &Said<'_>, value: u64, (min, max): (u64, u64), show: impl Fn(u64) -> String) -> Result<(), Problem> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Problem::new("out_of_range", format!("`{}` is {}", said.key, said.text))
        .expected(format!("expected {} to {}", show(min), show(max)))
        .help(format!("write `{}: {}`", said.key, show(value.clamp(min, max)))))
}

fn no_rate(said: &Said<'_>, example: &str) -> Problem {
    Problem::new("no_unit", "a rate needs its unit")
        .expected(format!("expected a rate such as `{example}`"))
        .help(format!("write `{}`", said.example))
}

/// A share in percent.
fn share(said: &Said<'_>, extra: &[&'static str]) -> Result<u64, Problem> {
    let expected = words_or(extra, "a share such as `20%`");
    match said.text.strip_suffix('%').map(str::parse::<u64>) {
        Some(Ok(percent)) if percent <= 100 => Ok(percent),
        Some(Ok(_)) => Err(Problem::new("out_of_range", format!("`{}` is {}", said.key, said.text))
            .expected("expected 0% to 100%")
            .help(format!("write `{}`", said.example))),
        _ if said.text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            let help = match said.text.parse::<f64>() {
                Ok(part) if part <= 1.0 && said.text.contains('.') => format!("write `{}%`", (part * 100.0).round()),
                _ => format!("write `{}%`", said.text),
            };
            Err(Problem::new("no_unit", "a share needs its unit").expected(format!("expected {expected}")).help(help))
        }
        _ => {
            let close = nearest(said.text, extra.iter().copied());
            Err(Problem::new("no_unit", format!("`{}` is not a share", said.text))
                .expected(format!("expected {expected}"))
                .nearest(close)
                .help(format!("write `{}`", said.example)))
        }
    }
}

fn path(said: &Said<'_>) -> Result<Scalar, Problem> {
    let same = || Ok(Scalar::Text(said.text.to_owned()));
    let sound = said.text.starts_with('/')
        && !said.text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#' || c == '\\');
    if sound {
        return same();
    }
    let nearest = said
        .text
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)))
        .map(str::to_owned);
    let nearest = nearest.or_else(|| {
        let word = said.text.chars().all(|c| c.is_ascii_alphanumeric() || "-_/.".contains(c));
        word.then(|| format!("/{}", said.text))
    });
    Err(Problem::new("bad_path", format!("`{}` is not a path", said.text))
        .expected("expected a path that begins with `/`")
        .nearest(nearest)
        .help(format!("write `{}`; host and port are known", said.example)))
}

fn bare_host(text: &str) -> Option<String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.split(['/', ':']).next()?.to_ascii_lowercase();
    let valid =
        bare != text && matches!(bare.parse::<HostPattern>(), Ok(HostPattern::Exact(_) | HostPattern::Suffix(_)));
    valid.then_some(bare)
}

fn method(said: &Said<'_>) -> Result<Scalar, Problem> {
    const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];
    if METHODS.contains(&said.text) {
        return Ok(Scalar::Text(said.text.to_owned()));
    }
    let close = nearest(&said.text.to_ascii_uppercase(), METHODS.iter().copied());
    Err(Problem::new("unknown_word", format!("`{}` is no method", said.text))
        .expected(format!("expected {}", words(METHODS.iter())))
        .nearest(close)
        .help("methods are written in capitals: `method: [GET, POST]`"))
}
