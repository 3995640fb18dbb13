//! Policies and probes: how requests are treated, how health is found out.

use synego_model::{Access, AccessLines, Balance, BalanceKind, Eject, HashKey, HealthSpec, Park, Policy, Probe};

use super::access::access;
use super::{Problems, checked, from_ms, join, ms};
use crate::pb;

/// Longest time of a request, in milliseconds: an hour.
const MAX_TIMEOUT_MS: u32 = 3_600_000;

/// Longest name of a header, cookie or query parameter, and longest probe path, in bytes.
const MAX_KEY: usize = 256;

impl From<&Policy> for pb::Policy {
    fn from(policy: &Policy) -> Self {
        let timeout_ms = ms(policy.timeout).clamp(1, MAX_TIMEOUT_MS);
        Self {
            timeout_ms,
            try_timeout_ms: ms(policy.try_timeout).clamp(1, timeout_ms),
            connect_ms: ms(policy.connect).max(1),
            idle_ms: ms(policy.idle),
            balance: Some((&policy.balance).into()),
            eject: policy.eject.as_ref().map(Into::into),
            retries: policy.retries.min(3),
            park: policy.park.as_ref().map(|park| pb::Park { within_ms: ms(park.within).max(1), max: park.max.max(1) }),
        }
    }
}

impl From<&Balance> for pb::Balance {
    fn from(balance: &Balance) -> Self {
        use pb::balance::{HashKey as Key, Kind};
        let (kind, hash_key) = match &balance.kind {
            BalanceKind::Load => (Kind::Load, None),
            BalanceKind::Least => (Kind::Least, None),
            BalanceKind::RoundRobin => (Kind::RoundRobin, None),
            BalanceKind::Random => (Kind::Random, None),
            BalanceKind::Hash(key) => (
                Kind::Hash,
                Some(match key {
                    HashKey::Header(name) => Key::Header(name.clone()),
                    HashKey::Cookie(name) => Key::Cookie(name.clone()),
                    HashKey::Query(name) => Key::Query(name.clone()),
                }),
            ),
        };
        Self {
            kind: kind.into(),
            slow_start_ms: ms(balance.slow_start),
            panic_percent: balance.panic_percent.min(100),
            hash_key,
        }
    }
}

impl From<&Eject> for pb::Eject {
    fn from(eject: &Eject) -> Self {
        Self {
            failures: eject.failures.clamp(1, 1000),
            first_ms: ms(eject.first),
            max_ms: ms(eject.max),
            at_most_percent: eject.at_most_percent.min(100),
        }
    }
}

checked! {
    pb::Policy => Policy: policy;
    pb::Balance => Balance: balance;
    pb::Eject => Eject: eject;
}

/// How requests are treated.
pub(crate) fn policy(message: &pb::Policy, path: &str, problems: &mut Problems) -> Option<Policy> {
    let timeout_ms = problems.range(&join(path, "timeout_ms"), message.timeout_ms, 1, MAX_TIMEOUT_MS);
    let try_ms = problems.range(&join(path, "try_timeout_ms"), message.try_timeout_ms, 1, timeout_ms.max(1));
    let connect_ms = problems.range(&join(path, "connect_ms"), message.connect_ms, 1, u32::MAX);
    let balance = match &message.balance {
        Some(found) => balance(found, &join(path, "balance"), problems)?,
        None => Balance::default(),
    };
    let eject = match &message.eject {
        Some(found) => Some(eject(found, &join(path, "eject"), problems)?),
        None => None,
    };
    Some(Policy {
        timeout: from_ms(timeout_ms),
        try_timeout: from_ms(try_ms),
        connect: from_ms(connect_ms),
        idle: from_ms(message.idle_ms),
        balance,
        eject,
        retries: problems.range(&join(path, "retries"), message.retries, 0, 3),
        park: message.park.as_ref().map(|park| Park {
            within: from_ms(problems.range(&join(path, "park.within_ms"), park.within_ms, 1, MAX_TIMEOUT_MS)),
            max: problems.range(&join(path, "park.max"), park.max, 1, 100_000),
        }),
    })
}

fn balance(message: &pb::Balance, path: &str, problems: &mut Problems) -> Option<Balance> {
    use pb::balance::{HashKey as Key, Kind};
    let kind = match (Kind::try_from(message.kind), &message.hash_key) {
        (Ok(Kind::Unspecified | Kind::Load), _) => BalanceKind::Load,
        (Ok(Kind::Least), _) => BalanceKind::Least,
        (Ok(Kind::RoundRobin), _) => BalanceKind::RoundRobin,
        (Ok(Kind::Random), _) => BalanceKind::Random,
        (Ok(Kind::Hash), Some(key)) => {
            let (Key::Header(name) | Key::Cookie(name) | Key::Query(name)) = key;
            problems.count(&join(path, "hash_key"), name.len(), 1, MAX_KEY);
            BalanceKind::Hash(match key {
                Key::Header(name) => HashKey::Header(name.to_ascii_lowercase()),
                Key::Cookie(name) => HashKey::Cookie(name.clone()),
                Key::Query(name) => HashKey::Query(name.clone()),
            })
        }
        (Ok(Kind::Hash), None) => {
            problems.add(join(path, "hash_key"), "is not set, expected a header, cookie or query parameter");
            return None;
        }
        (Err(_), _) => {
            problems.add(join(path, "kind"), format!("is {}, expected a way to pick", message.kind));
            return None;
        }
    };
    Some(Balance {
        kind,
        slow_start: from_ms(message.slow_start_ms),
        panic_percent: problems.range(&join(path, "panic_percent"), message.panic_percent, 0, 100),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "every check has the same form")]
fn eject(message: &pb::Eject, path: &str, problems: &mut Problems) -> Option<Eject> {
    Some(Eject {
        failures: problems.range(&join(path, "failures"), message.failures, 1, 1000),
        first: from_ms(message.first_ms),
        max: from_ms(message.max_ms),
        at_most_percent: problems.range(&join(path, "at_most_percent"), message.at_most_percent, 0, 100),
    })
}

/// A probe as it may travel: commands stay on the machine whose file names them, so an `exec` probe is none here.
#[must_use]
pub fn health_to_wire(spec: &HealthSpec) -> Option<pb::Health> {
    let probe = match &spec.probe {
        Probe::Http(path) => pb::health::Probe::Http(path.clone()),
        Probe::Grpc(name) => pb::health::Probe::Grpc(name.clone()),
        Probe::Tcp => pb::health::Probe::Tcp(true),
        Probe::Exec(_) => return None,
    };
    let every_ms = ms(spec.every).clamp(100, 300_000);
    Some(pb::Health {
        every_ms,
        timeout_ms: ms(spec.timeout).clamp(1, every_ms.max(60_000)),
        down: spec.down.clamp(1, 10),
        up: spec.up.clamp(1, 10),
        probe: Some(probe),
    })
}

/// A probe that travelled; `Some(None)`: the process and its port alone.
pub(crate) fn health(message: &pb::Health, path: &str, problems: &mut Problems) -> Option<Option<HealthSpec>> {
    let probe = match &message.probe {
        Some(pb::health::Probe::Http(target)) => {
            let target = problems.text(&join(path, "http"), target, MAX_KEY);
            if !target.starts_with('/') {
                problems.add(join(path, "http"), format!("is `{target}`, expected a path that begins with /"));
            }
            Probe::Http(target)
        }
        Some(pb::health::Probe::Grpc(name)) => Probe::Grpc(problems.text(&join(path, "grpc"), name, MAX_KEY)),
        Some(pb::health::Probe::Tcp(_)) => Probe::Tcp,
        None => return Some(None),
    };
    let every_ms = problems.range(&join(path, "every_ms"), message.every_ms, 100, 300_000);
    let timeout_ms = problems.range(&join(path, "timeout_ms"), message.timeout_ms, 1, every_ms.max(60_000));
    Some(Some(HealthSpec {
        probe,
        every: from_ms(every_ms),
        timeout: from_ms(timeout_ms),
        down: problems.range(&join(path, "down"), message.down, 1, 10),
        up: problems.range(&join(path, "up"), message.up, 1, 10),
    }))
}

/// What the manifest says about the service of one sidecar.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SidecarSettings {
    /// Whether the manifest names the service at all; if not, what the sidecar was started with holds.
    pub declared: bool,
    /// How requests to the service are treated.
    pub policy: Policy,
    /// How its health is probed; `None`: by its process and port alone.
    pub health: Option<HealthSpec>,
    /// Services it calls.
    pub uses: Vec<synego_model::ServiceName>,
    /// Which exchanges get a line in the access log; `None`: nobody has said so.
    pub access_lines: Option<AccessLines>,
    /// Who may call it; `None`: no master has said so.
    pub access: Option<Access>,
    /// Services that have the permission of their own `uses`, by name.
    pub callers: Vec<synego_model::ServiceName>,
    /// Whether other instances of the service are ready: then requests need not wait for this one.
    pub others_ready: bool,
}

impl From<&SidecarSettings> for pb::SidecarSettings {
    fn from(settings: &SidecarSettings) -> Self {
        Self {
            declared: settings.declared,
            policy: Some((&settings.policy).into()),
            health: settings.health.as_ref().and_then(health_to_wire),
            uses: settings.uses.iter().map(ToString::to_string).collect(),
            access_lines: settings.access_lines.map(Into::into),
            access: settings.access.as_ref().map(Into::into),
            caller: settings.callers.iter().map(ToString::to_string).collect(),
            others_ready: settings.others_ready,
        }
    }
}

impl From<AccessLines> for pb::AccessLines {
    fn from(lines: AccessLines) -> Self {
        Self { off: lines.percent().is_none(), percent: lines.percent().unwrap_or_default().into() }
    }
}

checked! {
    pb::SidecarSettings => SidecarSettings: settings;
}

fn access_lines(message: &pb::AccessLines, path: &str, problems: &mut Problems) -> AccessLines {
    match problems.range(&join(path, "percent"), message.percent, 0, 100) {
        _ if message.off => AccessLines::Off,
        0 => AccessLines::Errors,
        100 => AccessLines::All,
        percent => u8::try_from(percent).map_or(AccessLines::All, AccessLines::Share),
    }
}

fn settings(message: &pb::SidecarSettings, path: &str, problems: &mut Problems) -> Option<SidecarSettings> {
    let policy = match &message.policy {
        Some(found) => policy(found, &join(path, "policy"), problems),
        None => Some(Policy::default()),
    };
    let health = match &message.health {
        Some(found) => health(found, &join(path, "health"), problems),
        None => Some(None),
    };
    let uses = names(&message.uses, &join(path, "uses"), problems);
    let access = match &message.access {
        Some(found) => access(found, &join(path, "access"), problems).map(Some),
        None => Some(None),
    };
    let callers = names(&message.caller, &join(path, "caller"), problems);
    let access_lines =
        message.access_lines.as_ref().map(|found| access_lines(found, &join(path, "access_lines"), problems));
    Some(SidecarSettings {
        declared: message.declared,
        policy: policy?,
        health: health?,
        uses,
        access: access?,
        callers,
        access_lines,
        others_ready: message.others_ready,
    })
}

fn names(said: &[String], path: &str, problems: &mut Problems) -> Vec<synego_model::ServiceName> {
    problems.count(path, said.len(), 0, super::table::MAX_SERVICES);
    said.iter().enumerate().filter_map(|(at, name)| problems.parse(&format!("{path}[{at}]"), name)).collect()
}
