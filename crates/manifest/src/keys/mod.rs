//! One table of every key of the manifest: its type, default, range, meaning, what a change of it does, and whether
//! this version honours it. Reading, refusing, planning and explaining all go by it, so a key is switched on here.

mod edge;
mod gateway;
mod limits;
mod masters;
pub(crate) mod mesh;
mod policy;
mod probes;
mod process;
mod routes;
pub(crate) mod service;
pub(crate) mod shape;
mod telemetry;

pub(crate) use shape::{Form, Shape, Short};

/// What a change of a key does to what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The next snapshot carries it; no connection is touched.
    Live,
    /// Nginx is rendered, tested and reloaded gently.
    Edge,
    /// That listener alone is replaced.
    Socket,
    /// The added or removed instances alone.
    Scale,
    /// That service, new instances before old ones.
    Roll,
    /// It holds from the next start of a process on.
    NextStart,
    /// The Synego process hands over to a new one.
    #[serde(rename = "self")]
    Own,
    /// It is refused while the mesh runs.
    Never,
    /// Nothing that runs depends on it.
    Nothing,
}

impl Effect {
    /// The word, as `plan` prints it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Edge => "edge",
            Self::Socket => "socket",
            Self::Scale => "scale",
            Self::Roll => "roll",
            Self::NextStart => "next start",
            Self::Own => "self",
            Self::Never => "never",
            Self::Nothing => "–",
        }
    }

    /// What it means, in one sentence without a full stop.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Live => "the next snapshot carries it; no connection is touched",
            Self::Edge => "Nginx is rendered, tested and reloaded gently",
            Self::Socket => "that listener alone is replaced",
            Self::Scale => "the added or removed instances alone",
            Self::Roll => "that service, new instances before old ones",
            Self::NextStart => "it holds from the next start of a process on",
            Self::Own => "the Synego process hands over to a new one",
            Self::Never => "refused while the mesh runs",
            Self::Nothing => "nothing that runs depends on it",
        }
    }
}

/// One key of a section.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// What its value looks like.
    pub(crate) shape: &'static Shape,
    /// Its default as it would be written; empty: none.
    pub(crate) default: &'static str,
    /// What a change of it does.
    pub(crate) effect: Effect,
    /// What it is for: one sentence without a full stop.
    pub(crate) meaning: &'static str,
    /// The key as it could be written.
    pub(crate) example: &'static str,
    /// Whether this version honours it; one that is not is refused as `not_yet`.
    pub(crate) built: bool,
}

impl Key {
    /// The same key, not honoured yet.
    pub(crate) const fn later(mut self) -> Self {
        self.built = false;
        self
    }
}

/// A key that this version honours.
pub(crate) const fn key(
    name: &'static str,
    shape: &'static Shape,
    default: &'static str,
    effect: Effect,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, shape, default, effect, meaning, example, built: true }
}

/// A mapping of fixed keys.
#[derive(Debug)]
pub(crate) struct Section {
    /// What it is called: `service`, `gateway`.
    pub(crate) noun: &'static str,
    /// Whether there are several, each with a name of its own.
    pub(crate) many: bool,
    keys: &'static [Key],
    more: &'static [Key],
    /// What may stand in its place, and what that means.
    pub(crate) shorts: &'static [Short],
    /// Groups of keys of which one can be said.
    pub(crate) either: &'static [&'static [&'static str]],
    /// Words that others use for its keys.
    pub(crate) synonyms: &'static [(&'static str, &'static str)],
    /// Path of its page, such as `services`.
    pub(crate) page: &'static str,
}

impl Section {
    /// A section with nothing but keys; use with struct update syntax.
    pub(crate) const fn of(noun: &'static str, page: &'static str, keys: &'static [Key]) -> Self {
        Self { noun, many: false, keys, more: &[], shorts: &[], either: &[], synonyms: &[], page }
    }

    /// Its keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static Key> + Clone + use<> {
        self.keys.iter().chain(self.more)
    }

    /// The key of that name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// The key that others call so.
    pub(crate) fn synonym(&self, name: &str) -> Option<&'static str> {
        self.synonyms.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours)
    }

    /// The other keys of the group that `name` belongs to.
    pub(crate) fn alternatives(&self, name: &str) -> impl Iterator<Item = &'static str> {
        let group = self.either.iter().find(|group| group.contains(&name)).copied().unwrap_or(&[]);
        group.iter().copied().filter(move |other| *other != name)
    }

    /// `a service`, `the gateway`.
    pub(crate) fn article(&self) -> String {
        match (self.many, self.noun) {
            (false, "manifest") => "the manifest".to_owned(),
            (false, noun) => format!("`{noun}`"),
            (true, noun) if noun.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {noun}"),
            (true, noun) => format!("a {noun}"),
        }
    }
}

/// Where a path of keys leads, such as `services.users.policy.timeout`; names stand for themselves or as `NAME`.
pub(crate) fn find(path: &str) -> Option<Found> {
    let mut found = Found { path: String::new(), key: None, shape: &mesh::ROOT_SHAPE };
    let mut rest: Vec<&str> = path.split('.').collect();
    while !rest.is_empty() {
        let part = rest.remove(0);
        found = found.step(part)?;
    }
    Some(found)
}

/// A place in the table.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The path, with `NAME` and the like where a free key stands.
    pub(crate) path: String,
    /// The key there; none for the manifest itself and for one entry of a free mapping.
    pub(crate) key: Option<&'static Key>,
    /// What stands there.
    pub(crate) shape: &'static Shape,
}

impl Found {
    fn step(&self, part: &str) -> Option<Self> {
        let join = |name: &str| if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        if let Some(section) = self.shape.section() {
            let key = section.key(part)?;
            return Some(Self { path: join(key.name), key: Some(key), shape: key.shape });
        }
        let (label, of) = self.shape.entries()?;
        Some(Self { path: join(label), key: self.key, shape: of })
    }

    /// The section that stands here, whatever else may.
    pub(crate) fn section(&self) -> Option<&'static Section> {
        self.shape.section()
    }
}

/// Calls `visit` for every key of the table with its path; free keys stand as `NAME` or `PLACE`.
pub(crate) fn each(visit: &mut impl FnMut(&str, &'static Key, &'static Section)) {
    fn below(path: &str, shape: &'static Shape, visit: &mut impl FnMut(&str, &'static Key, &'static Section)) {
        if let Some(section) = shape.section() {
            for key in section.keys() {
                let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
                visit(&path, key, section);
                below(&path, key.shape, visit);
            }
        } else if let Some((label, of)) = shape.entries() {
            below(&format!("{path}.{label}"), of, visit);
        }
    }
    below("", &mesh::ROOT_SHAPE, visit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_says_what_it_is_for() {
        let mut count = 0;
        each(&mut |path, key, _| {
            count += 1;
            assert!(!key.meaning.is_empty() && !key.meaning.ends_with('.'), "{path}");
            assert!(key.example.starts_with(key.name) || key.example.contains(key.name), "{path}: {}", key.example);
        });
        assert!(count > 250, "{count} keys");
    }

    #[test]
    fn a_path_with_names_leads_to_its_key() {
        let name = |path: &str| find(path).and_then(|found| found.key).map(|key| key.name);
        assert_eq!(name("services.users.policy.timeout"), Some("timeout"));
        assert_eq!(name("gateway.static./static.cache"), Some("cache"));
        assert_eq!(name("services.users.routes.policy.eject.first"), Some("first"));
        assert_eq!(name("services.users.frobnicate"), None);
    }

    #[test]
    fn alternatives_and_synonyms_name_keys_that_exist() {
        each(&mut |path, _, section| {
            for name in
                section.either.iter().copied().flatten().copied().chain(section.synonyms.iter().map(|pair| pair.1))
            {
                assert!(section.key(name).is_some(), "{path}: {name}");
            }
        });
    }
}
