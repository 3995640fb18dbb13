//! What values look like.

use super::Section;

/// How a value stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A scalar.
    Scalar,
    /// A list.
    List,
    /// A mapping.
    Map,
}

/// A value that may stand in the place of a mapping.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Short {
    /// A scalar means this key.
    Scalar(&'static str),
    /// A list means this key.
    List(&'static str),
    /// A list of names means a mapping of these names to nothing.
    Names,
    /// One of these words means the key of that name with the value `true`; any other text means the second key.
    Words(&'static [&'static str], &'static str),
}

impl Short {
    /// The form in which it is written.
    pub(crate) fn form(self) -> Form {
        match self {
            Self::Scalar(_) | Self::Words(..) => Form::Scalar,
            Self::List(_) | Self::Names => Form::List,
        }
    }
}

/// What the free keys of a mapping are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Names of services and the like.
    Names,
    /// Places.
    Places,
    /// Names of variables.
    Variables,
    /// Names of listeners.
    Listeners,
    /// Anything that is not empty.
    Free,
}

/// What a value looks like.
#[derive(Debug)]
pub(crate) enum Shape {
    /// `true` or `false`.
    Bool,
    /// `false` alone, or beside a mapping.
    Off,
    /// Text; the word says of what.
    Text(&'static str),
    /// A name.
    Name,
    /// One of these words.
    Word {
        /// Of what.
        what: &'static str,
        /// Words that are honoured.
        built: &'static [&'static str],
        /// Words of the design that are not, yet.
        later: &'static [&'static str],
    },
    /// A whole number, or one of the words.
    Count {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
        /// Words that may stand instead.
        words: &'static [&'static str],
    },
    /// A number with a fraction: cores.
    Cores,
    /// A duration; bounds in milliseconds.
    Duration {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A size; bounds in bytes.
    Size {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A size a second; bounds in bytes.
    Flow {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// `100/s`.
    Rate,
    /// A share, in percent; words that may stand instead.
    Share(&'static [&'static str]),
    /// Where something of ours listens: a port, or an IP address and a port.
    Bind,
    /// Where something is reached: `host:port`.
    Reach,
    /// Where a service is found: a port, `host:port` or `unix:/path`.
    Target,
    /// A place: `[host]/path`.
    Place,
    /// A path of a URL.
    UrlPath,
    /// The path of a route, or a whole place.
    RoutePath,
    /// A host name or `*.` and one.
    Host,
    /// A file or folder, relative to the file that says it; the word says which.
    Path(&'static str),
    /// A command: text without shell signs, or a list.
    Command,
    /// A method of HTTP.
    Method,
    /// A pattern of text.
    Pattern,
    /// A URL.
    Url,
    /// An address range.
    Cidr,
    /// A list.
    List {
        /// Of what.
        of: &'static Shape,
        /// How many at most.
        max: usize,
    },
    /// A mapping of fixed keys.
    Map(&'static Section),
    /// A mapping of free keys.
    Named {
        /// What one entry is called, such as `service`.
        noun: &'static str,
        /// What the keys are.
        keys: Keys,
        /// What each value is.
        of: &'static Shape,
        /// How many at most.
        max: usize,
        /// What may stand in its place.
        shorts: &'static [Short],
        /// How a pair is written, for people.
        pair: &'static str,
    },
    /// The first of these that takes the form of what stands there.
    Either(&'static [&'static Shape]),
    /// A form of the design that this version does not honour yet.
    Later(&'static Shape),
    /// Any mapping.
    Free,
}

impl Shape {
    /// Whether a value of that form can be one.
    pub(crate) fn takes(&self, form: Form) -> bool {
        match self {
            Self::List { .. } => form == Form::List,
            Self::Command => form != Form::Map,
            Self::Map(section) => form == Form::Map || section.shorts.iter().any(|short| short.form() == form),
            Self::Named { shorts, .. } => form == Form::Map || shorts.iter().any(|short| short.form() == form),
            Self::Either(shapes) => shapes.iter().any(|shape| shape.takes(form)),
            Self::Later(shape) => shape.takes(form),
            Self::Free => form == Form::Map,
            _ => form == Form::Scalar,
        }
    }

    /// The shape that is meant by a value of that form.
    pub(crate) fn meant(&'static self, form: Form) -> Option<&'static Self> {
        match self {
            Self::Either(shapes) => shapes.iter().find_map(|shape| shape.meant(form)),
            _ => self.takes(form).then_some(self),
        }
    }

    /// The fixed keys that may stand here.
    pub(crate) fn section(&'static self) -> Option<&'static Section> {
        match self {
            Self::Map(section) => Some(section),
            Self::Either(shapes) => shapes.iter().find_map(|shape| shape.section()),
            Self::Later(shape) => shape.section(),
            Self::List { of, .. } => of.section(),
            _ => None,
        }
    }

    /// The free keys that may stand here: their label and what each is.
    pub(crate) fn entries(&'static self) -> Option<(&'static str, &'static Self)> {
        match self {
            Self::Named { keys, of, .. } => Some((
                match keys {
                    Keys::Places => "PLACE",
                    Keys::Free => "KEY",
                    Keys::Names | Keys::Variables | Keys::Listeners => "NAME",
                },
                of,
            )),
            Self::Either(shapes) => shapes.iter().find_map(|shape| shape.entries()),
            Self::Later(shape) => shape.entries(),
            _ => None,
        }
    }

    /// What it is, with its article: `a duration`, `a mapping`.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Bool => "a boolean".into(),
            Self::Off => "`false`".into(),
            Self::Text(what) => (*what).into(),
            Self::Name => "a name".into(),
            Self::Word { what, .. } => format!("a {what}"),
            Self::Count { .. } | Self::Cores => "a number".into(),
            Self::Duration { .. } => "a duration".into(),
            Self::Size { .. } => "a size".into(),
            Self::Flow { .. } | Self::Rate => "a rate".into(),
            Self::Share(_) => "a share".into(),
            Self::Bind | Self::Reach | Self::Target => "an address".into(),
            Self::Place => "a place".into(),
            Self::UrlPath | Self::RoutePath => "a path".into(),
            Self::Host => "a host name".into(),
            Self::Path(what) => format!("a {what}"),
            Self::Command => "text or a list".into(),
            Self::Method => "a method".into(),
            Self::Pattern => "a pattern".into(),
            Self::Url => "a URL".into(),
            Self::Cidr => "an address range".into(),
            Self::List { .. } => "a list".into(),
            Self::Named { shorts: [Short::Names], .. } => "a list or a mapping".into(),
            Self::Map(_) | Self::Named { .. } | Self::Free => "a mapping".into(),
            Self::Either(shapes) => {
                let all: Vec<String> = shapes.iter().map(|shape| shape.what()).collect();
                match all.split_last() {
                    Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                    _ => all.concat(),
                }
            }
            Self::Later(shape) => shape.what(),
        }
    }

    /// What is expected there, for people: forms, words, bounds.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Bool => "`true` or `false`".into(),
            Self::Off => "`false`".into(),
            Self::Word { built, later, .. } => words(built.iter().chain(later.iter())),
            Self::Count { min, max, words: [] } => format!("a number from {} to {}", number(*min), number(*max)),
            Self::Count { min, max, words: extra } => {
                words_or(extra, &format!("a number from {} to {}", number(*min), number(*max)))
            }
            Self::Cores => "a number such as `0.5`".into(),
            Self::Duration { .. } => "a duration such as `250ms`, `30s`, `5m`".into(),
            Self::Size { .. } => "a size such as `64KiB`, `10MiB`, `1GiB`".into(),
            Self::Flow { .. } => "a size a second such as `1KiB/s`".into(),
            Self::Rate => "a rate such as `100/s`, `600/m`".into(),
            Self::Share([]) => "a share such as `20%`".into(),
            Self::Share(extra) => words_or(extra, "a share such as `20%`"),
            Self::Bind => "a port, or an IP address and a port such as `127.0.0.1:8080`, `[::1]:8080`".into(),
            Self::Reach => "`host:port`".into(),
            Self::Target => "a port, `host:port` or `unix:/path`".into(),
            Self::Place | Self::RoutePath => "`/path` or `host/path`".into(),
            Self::UrlPath => "a path such as `/healthz`".into(),
            Self::Host => "a host name, or `*.` and one".into(),
            Self::Command => "a program and its arguments".into(),
            Self::List { of, .. } => format!("a list of {}", plural(&of.what())),
            Self::Map(section) => match section.shorts {
                [] => format!("keys of {}", section.article()),
                _ => format!("keys of {}, or the short form", section.article()),
            },
            Self::Named { pair, shorts: [Short::Names], .. } => format!("a list of names, or `{pair}` pairs"),
            Self::Named { pair, .. } => format!("`{pair}` pairs"),
            Self::Free => "a mapping".into(),
            Self::Either(shapes) => {
                let all: Vec<String> = shapes.iter().map(|shape| shape.expected_short()).collect();
                all.join(", or ")
            }
            Self::Later(shape) => shape.expected(),
            _ => self.what(),
        }
    }

    fn expected_short(&self) -> String {
        match self {
            Self::Map(_) | Self::Named { .. } | Self::Free => "a mapping".into(),
            _ => self.expected(),
        }
    }
}

/// `a`, `b` or `c`.
pub(crate) fn words<'a>(words: impl Iterator<Item = &'a &'static str>) -> String {
    let all: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => all.concat(),
    }
}

/// `a`, `b` or something else.
pub(crate) fn words_or(words: &[&'static str], other: &str) -> String {
    let all: String = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    if all.is_empty() { other.to_owned() } else { format!("{all} or {other}") }
}

fn plural(what: &str) -> String {
    let bare = what.strip_prefix("an ").or_else(|| what.strip_prefix("a ")).unwrap_or(what);
    match bare {
        "text" => "texts".into(),
        "text or a list" => "commands".into(),
        "address" => "addresses".into(),
        "text or a mapping" | "place or a mapping" | "mapping" => "places".into(),
        _ => format!("{bare}s"),
    }
}

/// A number with a comma between thousands.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
