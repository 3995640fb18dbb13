//! What a file can say, in long form, as types: they are read from what passed the checks, and the schema is made of
//! them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

mod values;

pub(crate) use values::{Bytes, MilliCores, NumberOr, OneOrMany, OrOff, Percent, Time};

/// The whole file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Manifest")]
pub(crate) struct Manifest {
    pub(crate) mesh: Option<String>,
    pub(crate) include: Option<Vec<String>>,
    pub(crate) nodes: Option<String>,
    pub(crate) access: Option<String>,
    pub(crate) masters: Option<Masters>,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) limits: Option<Limits>,
    pub(crate) telemetry: Option<Telemetry>,
    pub(crate) identity: Option<Identity>,
    pub(crate) defaults: Option<Defaults>,
    pub(crate) services: Option<BTreeMap<String, Service>>,
}

/// `masters`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Masters {
    pub(crate) ingress: Option<String>,
    pub(crate) mesh: Option<String>,
    pub(crate) admin: Option<String>,
    pub(crate) join: Option<Vec<String>>,
    pub(crate) token_file: Option<String>,
    pub(crate) report: Option<Time>,
    pub(crate) suspect: Option<Time>,
    pub(crate) gone: Option<Time>,
}

/// `identity`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) mtls: Option<String>,
    pub(crate) life: Option<Time>,
    pub(crate) ca: Option<Ca>,
}

/// `identity.ca`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ca {
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
}

/// `gateway`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gateway {
    pub(crate) engine: Option<String>,
    pub(crate) listen: Option<BTreeMap<String, Listen>>,
    pub(crate) hosts: Option<Vec<String>>,
    #[serde(rename = "static")]
    pub(crate) static_places: Option<BTreeMap<String, Static>>,
    pub(crate) spa: Option<BTreeMap<String, Spa>>,
}

/// One of `gateway.listen`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    pub(crate) address: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) proxy_protocol: Option<Vec<String>>,
}

/// One of `gateway.static`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Static {
    pub(crate) dir: Option<String>,
    pub(crate) index: Option<String>,
    pub(crate) cache: Option<Time>,
    pub(crate) list: Option<bool>,
}

/// One of `gateway.spa`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Spa {
    pub(crate) dir: Option<String>,
    pub(crate) index: Option<String>,
}

/// `limits`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) headers: Option<Bytes>,
    pub(crate) header: Option<Bytes>,
    pub(crate) header_count: Option<u32>,
    pub(crate) target: Option<Bytes>,
    pub(crate) streams: Option<u32>,
    pub(crate) window: Option<Bytes>,
    pub(crate) connection_window: Option<Bytes>,
    pub(crate) resets: Option<u32>,
    pub(crate) header_read: Option<Time>,
    pub(crate) body_idle: Option<Time>,
    pub(crate) body_rate: Option<Bytes>,
    pub(crate) write_stall: Option<Time>,
    pub(crate) client_idle: Option<Time>,
    pub(crate) pool_idle: Option<Time>,
    pub(crate) connection_age: Option<Time>,
    pub(crate) connections: Option<NumberOr>,
    pub(crate) in_flight: Option<u32>,
    pub(crate) ping: Option<Time>,
    pub(crate) replay: Option<Bytes>,
}

/// `telemetry`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    pub(crate) logs: Option<Logs>,
}

/// `telemetry.logs`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Logs {
    pub(crate) dir: Option<String>,
    pub(crate) level: Option<String>,
    pub(crate) format: Option<String>,
    pub(crate) keep: Option<Time>,
    pub(crate) max_size: Option<Bytes>,
    pub(crate) access: Option<String>,
}

/// `defaults`: what a service can leave to all.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Defaults {
    pub(crate) cwd: Option<String>,
    pub(crate) env: Option<BTreeMap<String, String>>,
    pub(crate) env_file: Option<Vec<String>>,
    pub(crate) pass_env: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) files: Option<u64>,
    pub(crate) instances: Option<NumberOr>,
    pub(crate) protocol: Option<String>,
    pub(crate) health: Option<Health>,
    pub(crate) ready: Option<Ready>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) policy: Option<Policy>,
    pub(crate) allow: Option<Vec<Caller>>,
    pub(crate) deny: Option<Vec<Caller>>,
    pub(crate) restart: Option<Restart>,
    pub(crate) stop: Option<Stop>,
    pub(crate) logs: Option<ServiceLogs>,
    pub(crate) memory: Option<Bytes>,
    pub(crate) cpu: Option<MilliCores>,
    pub(crate) watch: Option<Watch>,
    pub(crate) reload: Option<Reload>,
}

/// One of `services`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) run: Option<Vec<String>>,
    pub(crate) address: Option<OneOrMany>,
    pub(crate) build: Option<Vec<String>>,
    pub(crate) version: Option<String>,
    pub(crate) port: Option<NumberOr>,
    pub(crate) socket: Option<String>,
    pub(crate) routes: Option<Vec<Route>>,
    pub(crate) uses: Option<BTreeMap<String, Use>>,
    pub(crate) after: Option<Vec<String>>,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Option<BTreeMap<String, String>>,
    pub(crate) env_file: Option<Vec<String>>,
    pub(crate) pass_env: Option<Vec<String>>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) files: Option<u64>,
    pub(crate) instances: Option<NumberOr>,
    pub(crate) protocol: Option<String>,
    pub(crate) health: Option<Health>,
    pub(crate) ready: Option<Ready>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) policy: Option<Policy>,
    pub(crate) allow: Option<Vec<Caller>>,
    pub(crate) deny: Option<Vec<Caller>>,
    pub(crate) restart: Option<Restart>,
    pub(crate) stop: Option<Stop>,
    pub(crate) logs: Option<ServiceLogs>,
    pub(crate) memory: Option<Bytes>,
    pub(crate) cpu: Option<MilliCores>,
    pub(crate) watch: Option<Watch>,
    pub(crate) reload: Option<Reload>,
}

/// One of `allow` or `deny`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Caller {
    pub(crate) caller: Option<String>,
    pub(crate) method: Option<Vec<String>>,
    pub(crate) path: Option<String>,
}

/// One of `uses`: nothing more can be said of it so far.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Use {}

/// One of `routes`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Route {
    pub(crate) host: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) exact: Option<bool>,
    pub(crate) method: Option<Vec<String>>,
    pub(crate) headers: Option<BTreeMap<String, String>>,
    pub(crate) query: Option<BTreeMap<String, String>>,
    pub(crate) policy: Option<Policy>,
    pub(crate) allow: Option<Vec<Caller>>,
    pub(crate) deny: Option<Vec<Caller>>,
}

/// `health`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    pub(crate) http: Option<String>,
    pub(crate) grpc: Option<String>,
    pub(crate) tcp: Option<String>,
    pub(crate) exec: Option<Vec<String>>,
    pub(crate) every: Option<Time>,
    pub(crate) timeout: Option<Time>,
    pub(crate) down: Option<u32>,
    pub(crate) up: Option<u32>,
}

/// `ready`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ready {
    pub(crate) port: Option<String>,
    pub(crate) notify: Option<String>,
    pub(crate) http: Option<String>,
    pub(crate) grpc: Option<String>,
    pub(crate) tcp: Option<String>,
    pub(crate) exec: Option<Vec<String>>,
    pub(crate) log: Option<String>,
    pub(crate) within: Option<Time>,
}

/// `policy`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Policy {
    pub(crate) timeout: Option<Time>,
    pub(crate) try_timeout: Option<Time>,
    pub(crate) connect: Option<Time>,
    pub(crate) idle: Option<Time>,
    pub(crate) balance: Option<Balance>,
    pub(crate) eject: Option<OrOff<Eject>>,
    pub(crate) park: Option<OrOff<Park>>,
}

/// `policy.balance`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Balance {
    pub(crate) by: Option<String>,
    pub(crate) hash: Option<Hash>,
    pub(crate) slow_start: Option<Time>,
    pub(crate) panic: Option<Percent>,
}

/// `policy.balance.hash`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Hash {
    pub(crate) header: Option<String>,
    pub(crate) cookie: Option<String>,
    pub(crate) query: Option<String>,
}

/// `policy.eject`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Eject {
    pub(crate) failures: Option<u32>,
    pub(crate) first: Option<Time>,
    pub(crate) max: Option<Time>,
    pub(crate) at_most: Option<Percent>,
}

/// `policy.park`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Park {
    pub(crate) within: Option<Time>,
    pub(crate) max: Option<u32>,
}

/// `stop`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Stop {
    pub(crate) within: Option<Time>,
    pub(crate) signal: Option<String>,
}

/// `logs` of a service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServiceLogs {
    pub(crate) level: Option<String>,
    pub(crate) format: Option<String>,
}

/// `restart`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Restart {
    pub(crate) when: Option<String>,
    pub(crate) backoff: Option<Time>,
    pub(crate) max: Option<Time>,
    pub(crate) tries: Option<u32>,
    pub(crate) window: Option<Time>,
}

/// `watch`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Watch {
    pub(crate) files: Option<Vec<String>>,
    pub(crate) ignore: Option<Vec<String>>,
    pub(crate) debounce: Option<Time>,
}

/// `reload`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Reload {
    pub(crate) max_surge: Option<u32>,
    pub(crate) max_unavailable: Option<u32>,
}
