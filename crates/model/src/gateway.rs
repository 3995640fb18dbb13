//! What faces the world.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::place::{HostPattern, Place};

/// What serves the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Nginx, in front of the master.
    Nginx,
    /// The master itself: dynamic routes only, no files.
    Master,
}

/// What is spoken at an address that faces the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenProtocol {
    /// HTTP/1.1, with WebSocket and SSE.
    Http,
    /// gRPC over HTTP/2 without TLS.
    Grpc,
}

/// An address that faces the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// Its name, such as `http` or `grpc`.
    pub name: String,
    /// What is spoken there.
    pub protocol: ListenProtocol,
    /// Where.
    pub address: SocketAddr,
    /// Load balancers that say by a PROXY header whose connection they pass on, and must; none: nobody may.
    pub proxy_protocol: Vec<Network>,
}

/// A folder of files served at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPlace {
    /// Where.
    pub place: Place,
    /// Folder; absolute.
    pub dir: PathBuf,
    /// File that is served for a folder, such as `index.html`; empty: none.
    pub index: String,
    /// How long a client may keep it.
    pub cache: std::time::Duration,
    /// Whether a folder without index is listed.
    pub list: bool,
}

/// A single-page application served at a place: unknown paths get its index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaPlace {
    /// Where.
    pub place: Place,
    /// Folder; absolute.
    pub dir: PathBuf,
    /// Its index file.
    pub index: String,
}

/// What faces the world on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewaySpec {
    /// Who serves; `None`: Nginx where it is found, else the master.
    pub engine: Option<Engine>,
    /// Addresses.
    pub listen: Vec<Listen>,
    /// Hosts that are served; none: any. Others get 404 `no_route`.
    pub hosts: Vec<HostPattern>,
    /// Folders of files.
    pub static_places: Vec<StaticPlace>,
    /// Single-page applications.
    pub spa_places: Vec<SpaPlace>,
}
