//! Names: what a mesh, a machine, a service and an instance are called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: that of a DNS label.
pub const MAX_NAME: usize = 63;

/// Text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a name: expected a-z, 0-9 and -, first a letter, at most 63")]
pub struct BadName {
    /// What was given.
    pub text: String,
}

/// Whether `text` is `[a-z]([-a-z0-9]{0,61}[a-z0-9])?`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    bytes.len() <= MAX_NAME
        && first.is_ascii_lowercase()
        && *last != b'-'
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// The nearest valid name to `text`: lower case, everything else becomes `-`; `None` when nothing is left.
#[must_use]
pub fn nearest_name(text: &str) -> Option<String> {
    let mut name = String::new();
    for byte in text.bytes().map(|byte| byte.to_ascii_lowercase()) {
        if byte.is_ascii_lowercase() || (byte.is_ascii_digit() && !name.is_empty()) {
            name.push(char::from(byte));
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(MAX_NAME);
    let name = name.trim_end_matches('-').to_owned();
    is_name(&name).then_some(name)
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// A name from text; errors when it is none.
            ///
            /// # Errors
            /// [`BadName`] when `text` is not `[a-z]([-a-z0-9]{0,61}[a-z0-9])?`.
            pub fn new(text: &str) -> Result<Self, BadName> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(BadName { text: text.to_owned() }) }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_type! {
    /// Name of a mesh; also the trust domain.
    MeshName
}
name_type! {
    /// Name of a machine.
    NodeName
}
name_type! {
    /// Name of a service.
    ServiceName
}
name_type! {
    /// Name of an instance on its machine, such as `users-1`.
    InstanceName
}

/// An instance in the whole mesh: `users-1@vm1`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// The id of the instance `instance` on the machine `node`.
    #[must_use]
    pub fn new(instance: &InstanceName, node: &NodeName) -> Self {
        Self(format!("{instance}@{node}").into())
    }

    /// The text, `INSTANCE@NODE`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `@`.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.0.split_once('@').map_or(&self.0, |(instance, _)| instance)
    }

    /// The part after the `@`.
    #[must_use]
    pub fn node(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, node)| node)
    }
}

impl FromStr for InstanceId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        match text.split_once('@') {
            Some((instance, node)) if is_name(instance) && is_name(node) => Ok(Self(text.into())),
            _ => Err(BadName { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for InstanceId {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_that_begins_with_a_letter() {
        for good in ["a", "users", "user-api", "a1", &"a".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1a", "-a", "a-", "User", "a_b", "a.b", "ä", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_nearest_name_is_a_name_or_nothing() {
        assert_eq!(nearest_name("User_API").as_deref(), Some("user-api"));
        assert_eq!(nearest_name("9lives").as_deref(), Some("lives"));
        assert_eq!(nearest_name("__").as_deref(), None);
    }

    #[test]
    fn an_instance_id_names_instance_and_node() {
        let id: Result<InstanceId, _> = "users-1@vm1".parse();
        assert_eq!(id.as_ref().map(|id| (id.instance(), id.node())), Ok(("users-1", "vm1")));
        assert!("users-1".parse::<InstanceId>().is_err());
    }
}
