//! Snapshots: an immutable picture of endpoints, routes and policies, on which the data plane routes.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::endpoint::Endpoint;
use crate::limits::Limits;
use crate::name::{InstanceId, ServiceName};
use crate::policy::Policy;
use crate::protocol::Protocol;
use crate::route::{self, Route};

/// The version of a snapshot; grows within one incarnation of its master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// One service as callers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceTable {
    /// Its name.
    pub name: ServiceName,
    /// What it speaks.
    pub protocol: Protocol,
    /// How requests to it are treated.
    pub policy: Arc<Policy>,
    /// Who may call it, beside the `uses` of its callers.
    pub access: Arc<Access>,
    /// Services that have the permission of their own `uses`, by name; known to masters alone.
    pub callers: Arc<[ServiceName]>,
    /// Its instances that are not gone, by id.
    pub endpoints: Vec<Endpoint>,
}

/// An immutable picture of endpoints, routes and policies.
///
/// Built by [`Snapshot::new`], shared as `Arc<Snapshot>`, replaced as a whole.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshot {
    epoch: Epoch,
    services: HashMap<ServiceName, Arc<ServiceTable>, RandomState>,
    routes: Arc<[Route]>,
    limits: Limits,
}

impl ServiceTable {
    /// An instance; `None` when it is not in the table.
    #[must_use]
    pub fn endpoint(&self, id: &InstanceId) -> Option<&Endpoint> {
        let found = self.endpoints.binary_search_by(|endpoint| endpoint.id.cmp(id)).ok()?;
        self.endpoints.get(found)
    }
}

impl Snapshot {
    /// A picture of `services` and `routes`; the routes are put into the order in which they win, the endpoints of each
    /// service into that of their ids.
    #[must_use]
    pub fn new(
        epoch: Epoch,
        services: impl IntoIterator<Item = Arc<ServiceTable>>,
        mut routes: Vec<Route>,
        limits: Limits,
    ) -> Self {
        route::sort_by_rank(&mut routes);
        let services = services.into_iter().map(|table| (table.name.clone(), table)).collect();
        Self { epoch, services, routes: routes.into(), limits }
    }

    /// The picture after this one; `routes`: `None` when they stay. Routes that are the same are shared, not copied, so
    /// that whoever prepared them knows it from a look: [`Self::has_routes_of`].
    #[must_use]
    pub fn next(
        &self,
        services: impl IntoIterator<Item = Arc<ServiceTable>>,
        routes: Option<Vec<Route>>,
        limits: &Limits,
    ) -> Self {
        let routes_stay = routes.is_none();
        let mut next = Self::new(Epoch(self.epoch.0 + 1), services, routes.unwrap_or_default(), limits.clone());
        if routes_stay || next.routes == self.routes {
            next.routes = Arc::clone(&self.routes);
        }
        next
    }

    /// Whether the routes are those of `other`.
    #[must_use]
    pub fn has_routes_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.routes, &other.routes) || self.routes == other.routes
    }

    /// Nothing at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Its version.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A service; `None` when it is not known here.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<ServiceTable>> {
        self.services.get(name)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceTable>> {
        self.services.values()
    }

    /// All routes; the first one that matches wins.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Bounds in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}
