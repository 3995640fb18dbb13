//! What masters give and the disk keeps: certificates on their way to and from both.

use std::path::Path;
use std::time::Duration;

use synego_identity::{Connector, Credential, JoinToken, PrivateKey};
use synego_model::{Identity, Role};
use synego_runtime::{clock, tasks};
use synego_wire::pb;

use super::ask::{self, AskError};
use super::disk::{self, Kept};
use super::{CredentialError, Held, KeeperConfig, Source};
use crate::authority::{For, hex, unhex};
use crate::uplink::MasterAddress;

pub(super) async fn from_authority(config: &KeeperConfig, key: &PrivateKey) -> Result<pb::Certificates, AskError> {
    let Source::Authority(authority) = &config.source else { return Err(nobody(config)) };
    let failed = |cause: String| AskError::Unreached { address: "the own authority".into(), cause };
    let request = key.request().map_err(|error| failed(error.to_string()))?;
    let identity = Identity { mesh: authority.mesh().clone(), role: config.role.clone() };
    let to = For { identity: &identity, holder: &config.holder, local: true };
    let given = authority.issue(&request, to).await.map_err(|error| failed(error.to_string()))?;
    let certificate = pb::Certificate {
        chain: given.chain,
        not_before_unix_ms: given.not_before_unix_ms,
        not_after_unix_ms: given.not_after_unix_ms,
    };
    let mesh = authority.mesh().to_string();
    Ok(pb::Certificates { mesh, certificate: vec![certificate], trust: Some(authority.trust()) })
}

pub(super) async fn from_masters(
    config: &KeeperConfig,
    masters: &[MasterAddress],
    connector: &Connector,
    key: &PrivateKey,
) -> Result<pb::Certificates, AskError> {
    let mut last = nobody(config);
    for master in masters {
        let asked = applicant(config, key)
            .map_err(|error| AskError::Unreached { address: master.to_string(), cause: error.to_string() })?;
        match ask::renew(master, connector, asked).await {
            Ok(given) => return Ok(given),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn nobody(config: &KeeperConfig) -> AskError {
    AskError::Unreached { address: config.holder.clone(), cause: "there is no master to ask".into() }
}

pub(super) fn applicant(config: &KeeperConfig, key: &PrivateKey) -> Result<pb::Applicant, CredentialError> {
    let request = key.request().map_err(|error| CredentialError::Refused(error.to_string()))?;
    let service = match &config.role {
        Role::Service(service) => service.to_string(),
        Role::Master | Role::Operator(_) => String::new(),
    };
    Ok(pb::Applicant { service, holder: config.holder.clone(), request })
}

pub(super) fn new_key() -> Result<PrivateKey, CredentialError> {
    PrivateKey::generate().map_err(|error| CredentialError::Refused(error.to_string()))
}

/// What a master gave, with the key that it is for.
pub(super) fn received(
    given: pb::Certificates,
    key: PrivateKey,
    config: &KeeperConfig,
) -> Result<(String, Held), CredentialError> {
    let refused = |what: &str| CredentialError::Refused(format!("the master's answer has no {what}"));
    if let Some(mesh) = config.mesh.as_ref().filter(|mesh| mesh.as_str() != given.mesh) {
        return Err(CredentialError::Refused(format!("the master belongs to the mesh {}, not to {mesh}", given.mesh)));
    }
    let certificate = given.certificate.into_iter().next().ok_or_else(|| refused("certificate"))?;
    let trust = given.trust.ok_or_else(|| refused("root"))?;
    let held = Held {
        credential: Credential { chain_der: certificate.chain, key },
        roots: trust.root,
        since_unix_ms: clock::unix_ms(),
        not_after_unix_ms: certificate.not_after_unix_ms,
    };
    Ok((given.mesh, held))
}

pub(super) fn no_token(config: &KeeperConfig, kept: Option<&Kept>) -> CredentialError {
    let holder = config.holder.clone();
    match kept.filter(|kept| !kept.chain.is_empty()) {
        Some(kept) => {
            let ago = Duration::from_millis(clock::unix_ms().saturating_sub(kept.not_after_unix_ms));
            let ago = synego_model::text::duration(Duration::from_secs(ago.as_secs()));
            CredentialError::Ended { holder, ago }
        }
        None => CredentialError::NoToken { holder },
    }
}

fn role_word(role: &Role) -> String {
    match role {
        Role::Service(service) => format!("svc/{service}"),
        Role::Master => "master".to_owned(),
        Role::Operator(name) => format!("operator/{name}"),
    }
}

/// What the disk has for this config; one of another role or mesh is not its own.
pub(super) async fn kept(config: &KeeperConfig) -> Result<Option<Kept>, CredentialError> {
    let Some(file) = config.file.clone() else { return Ok(None) };
    let path = file.display().to_string();
    let loaded = tasks::spawn_blocking("identity-load", move || disk::load(&file)).await;
    let failed = |cause: String| CredentialError::Kept { path: path.clone(), cause };
    let kept = loaded.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    let Some(kept) = kept else { return Ok(None) };
    if kept.role != role_word(&config.role) {
        return Err(failed(format!("it is for {}, not for {}", kept.role, role_word(&config.role))));
    }
    let other = config.mesh.as_ref().filter(|mesh| !kept.mesh.is_empty() && mesh.as_str() != kept.mesh);
    match other {
        Some(mesh) => Err(failed(format!("it is of the mesh {}, not of {mesh}", kept.mesh))),
        None => Ok(Some(kept)),
    }
}

pub(super) fn held(kept: &Kept) -> Option<Held> {
    let all = |texts: &[String]| texts.iter().map(|text| unhex(text)).collect::<Option<Vec<_>>>();
    let (chain_der, roots) = (all(&kept.chain)?, all(&kept.roots)?);
    if chain_der.is_empty() || roots.is_empty() {
        return None;
    }
    let key = PrivateKey::from_pem(&kept.key).ok()?;
    Some(Held {
        credential: Credential { chain_der, key },
        roots,
        since_unix_ms: kept.since_unix_ms,
        not_after_unix_ms: kept.not_after_unix_ms,
    })
}

pub(super) async fn save(config: &KeeperConfig, mesh: &str, held: &Held) -> Result<(), CredentialError> {
    let hex = |der: &Vec<u8>| hex(der);
    write(
        config,
        Kept {
            mesh: mesh.to_owned(),
            role: role_word(&config.role),
            key: held.credential.key.to_pem(),
            chain: held.credential.chain_der.iter().map(hex).collect(),
            roots: held.roots.iter().map(hex).collect(),
            since_unix_ms: held.since_unix_ms,
            not_after_unix_ms: held.not_after_unix_ms,
        },
    )
    .await
}

/// Writes down a key before anybody hears of it, so that it can be asked for again.
pub(super) async fn save_pending(config: &KeeperConfig, key: &PrivateKey) -> Result<(), CredentialError> {
    let mesh = config.mesh.as_ref().map(ToString::to_string).unwrap_or_default();
    write(config, Kept { mesh, role: role_word(&config.role), key: key.to_pem(), ..Kept::default() }).await
}

async fn write(config: &KeeperConfig, kept: Kept) -> Result<(), CredentialError> {
    let Some(file) = config.file.clone() else { return Ok(()) };
    let path = file.display().to_string();
    let saved = tasks::spawn_blocking("identity-save", move || disk::save(&file, &kept)).await;
    let failed = |cause: String| CredentialError::Kept { path: path.clone(), cause };
    saved.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

pub(super) async fn read_token(file: &Path) -> Result<JoinToken, CredentialError> {
    let path = file.display().to_string();
    let file = file.to_owned();
    let read = tasks::spawn_blocking("token-read", move || disk::token(&file)).await;
    let failed = |cause: String| CredentialError::TokenFile { path: path.clone(), cause };
    let text = read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    JoinToken::parse(&text).map_err(|error| failed(error.to_string()))
}
