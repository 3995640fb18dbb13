//! Who a part of the mesh is, as its certificate says it.
//!
//! The form is that of SPIFFE (SPIFFE-ID §2): `spiffe://<mesh>/svc/<service>`, `spiffe://<mesh>/master`,
//! `spiffe://<mesh>/operator/<name>`. The mesh is the trust domain; the instance is not in the id.

use std::fmt;

use crate::{MeshName, ServiceName};

/// What a part of the mesh may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The sidecars of one service.
    Service(ServiceName),
    /// A master: registry, authority and ingress.
    Master,
    /// A person or tool at the admin API; named by the same grammar as a service.
    Operator(ServiceName),
}

/// Who a part of the mesh is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The mesh: its trust domain.
    pub mesh: MeshName,
    /// What it is there.
    pub role: Role,
}

/// Why a text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no identity of a mesh: `spiffe://MESH/svc/SERVICE`, `spiffe://MESH/master` or `spiffe://MESH/operator/NAME` is"
)]
pub struct BadIdentity(String);

impl Identity {
    /// The sidecars of `service`.
    #[must_use]
    pub fn service(mesh: MeshName, service: ServiceName) -> Self {
        Self { mesh, role: Role::Service(service) }
    }

    /// A master.
    #[must_use]
    pub fn master(mesh: MeshName) -> Self {
        Self { mesh, role: Role::Master }
    }

    /// Reads a SPIFFE id; nothing is made lower case, decoded or left out on the way.
    ///
    /// # Errors
    /// [`BadIdentity`] for everything that [`fmt::Display`] would not have written.
    pub fn parse(text: &str) -> Result<Self, BadIdentity> {
        let read = || {
            let (mesh, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
            let role = match path.split_once('/') {
                None if path == "master" => Role::Master,
                Some(("svc", name)) => Role::Service(ServiceName::new(name).ok()?),
                Some(("operator", name)) => Role::Operator(ServiceName::new(name).ok()?),
                _ => return None,
            };
            Some(Self { mesh: MeshName::new(mesh).ok()?, role })
        };
        read().ok_or_else(|| BadIdentity(text.chars().take(200).collect()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "spiffe://{}/", self.mesh)?;
        match &self.role {
            Role::Service(name) => write!(out, "svc/{name}"),
            Role::Master => out.write_str("master"),
            Role::Operator(name) => write!(out, "operator/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        for text in ["spiffe://shop/svc/users", "spiffe://shop/master", "spiffe://shop/operator/alice"] {
            assert_eq!(Identity::parse(text).map(|id| id.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_not_byte_for_byte_an_identity_is_refused() {
        for text in [
            "",
            "spiffe://shop",
            "spiffe://shop/",
            "spiffe://shop/svc/",
            "spiffe://shop/svc/users/",
            "spiffe://shop/svc/users/1",
            "spiffe://shop/master/",
            "spiffe://shop:443/master",
            "spiffe://u@shop/master",
            "spiffe://shop/master?x=1",
            "spiffe://shop/master#x",
            "SPIFFE://shop/master",
            "spiffe://Shop/master",
            "spiffe://shop/svc/us%65rs",
            "spiffe://shop/admin/alice",
            "https://shop/svc/users",
        ] {
            assert!(Identity::parse(text).is_err(), "{text}");
        }
    }
}
