//! `grpc.health.v1.Health` for our own APIs: serving until the drain begins.

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// The health of one program, under the empty name as the protocol has it for a server as a whole.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
}

impl Default for Health {
    fn default() -> Self {
        Self { reporter: HealthReporter::new() }
    }
}

impl Health {
    /// A program that serves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The service, to be merged into the router of a port.
    pub fn router(&self) -> axum::Router {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        // Without tonic's fallback: on a port of several APIs an unknown path is a plain 404.
        Routes::new(HealthServer::new(service)).prepare().into_axum_router().reset_fallback()
    }

    /// From now on the program takes nothing new: those that watch learn it at once.
    pub async fn not_serving(&self) {
        self.reporter.set_service_status("", ServingStatus::NotServing).await;
    }
}
