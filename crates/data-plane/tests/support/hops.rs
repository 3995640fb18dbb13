//! The three hops to one instance of a service called `users`, for what holds on each of them.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::expect_used,
    reason = "each test file uses its own part of this"
)]

use std::net::SocketAddr;
use std::time::Duration;

use synego_data_plane::Server;
use synego_model::{Policy, Protocol};

use super::support::{Instance, Mesh, Service, raw};

pub struct Hops {
    pub mesh: Mesh,
    pub users: Instance,
    pub ingress: Server,
    pub outbound: Server,
}

impl Hops {
    pub async fn of(service: Service) -> Self {
        // What is repeated would be counted twice.
        Self::under(Policy { retries: 0, ..Policy::default() }, service).await
    }

    pub async fn under(policy: Policy, service: Service) -> Self {
        let mesh = Mesh::start();
        mesh.service("users", Protocol::Http, policy);
        let users = mesh.instance("users", service).await;
        let ingress = mesh.route("/", "users").ingress();
        let outbound = mesh.outbound("orders");
        Self { mesh, users, ingress, outbound }
    }

    pub fn each(&self) -> [(&'static str, SocketAddr); 3] {
        let at = |server: &Server| server.local_addr();
        [("ingress", at(&self.ingress)), ("outbound", at(&self.outbound)), ("inbound", at(&self.users.inbound))]
    }
}

/// Fails with all that is wrong: `hop: what: got`.
pub fn nothing_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// As [`raw`], but without patience for an answer that does not come.
pub async fn brief(address: SocketAddr, bytes: &[u8]) -> String {
    tokio::time::timeout(Duration::from_secs(2), raw(address, bytes)).await.unwrap_or_default()
}
