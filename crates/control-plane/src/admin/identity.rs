//! Join tokens, the certificate authority, and who each instance is: for people and tools.

use std::collections::BTreeSet;

use synego_model::{IdentityReport, Reason, ServiceName};
use synego_runtime::clock;
use synego_wire::{pb, status};
use tokio::sync::oneshot;
use tonic::Status;

use crate::authority::CaError;
use crate::authority::state::Reported;
use crate::enrol::Door;
use crate::master::{Ask, Shared};
use crate::registry::Registry;
use crate::tokens::{CreateError, Kept, TTL_MS};

/// What the registry knows of one instance's identity.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) instance: String,
    /// Its service on its machine: `users@vm1`.
    pub(crate) shared: String,
    pub(crate) identity: Option<IdentityReport>,
    pub(crate) is_linked: bool,
}

/// Of every instance that is not gone for long.
pub(crate) fn known(registry: &Registry) -> Vec<Known> {
    let of = |found: &crate::registry::Instance| Known {
        instance: found.announcement.id.to_string(),
        shared: format!("{}@{}", found.announcement.service, found.announcement.node),
        identity: found.report.as_ref().and_then(|report| report.identity.clone()),
        is_linked: found.state != synego_model::InstanceState::Gone,
    };
    registry.instances().map(of).collect()
}

/// What those say that are linked, this master among them; `None`: the registry rests.
pub(crate) async fn reported(shared: &Shared) -> Option<Vec<Reported>> {
    let (reply, answer) = oneshot::channel();
    shared.asks.send(Ask::Identities(reply)).await.ok()?;
    let known = answer.await.ok()?;
    let linked = known.into_iter().filter(|one| one.is_linked);
    let mut all: Vec<Reported> = linked
        .filter_map(|one| {
            let identity = one.identity?;
            Some(told([one.instance, one.shared], identity))
        })
        .collect();
    if let Some(credential) = &shared.credential {
        all.push(told([shared.name.clone(), shared.name.clone()], credential.report()));
    }
    Some(all)
}

fn told(names: [String; 2], identity: IdentityReport) -> Reported {
    let trusted: BTreeSet<String> = identity.trusted.into_iter().collect();
    Reported { names, serial: identity.serial, trusted }
}

/// The door of a mesh that has certificates.
///
/// # Errors
/// When this one has none.
pub(crate) fn door(shared: &Shared) -> Result<&Door, Status> {
    let off = || {
        let message = "this mesh runs without certificates (`identity: { mtls: off }`): there is nothing to join by a token and no authority";
        Status::failed_precondition(message)
    };
    shared.door.as_deref().ok_or_else(off)
}

pub(crate) async fn token_create(shared: &Shared, asked: pb::TokenCreateRequest) -> Result<pb::TokenCreated, Status> {
    let door = door(shared)?;
    let service = match asked.service.as_str() {
        "" => None,
        name => Some(name.parse::<ServiceName>().map_err(|error| invalid(format!("service: {error}")))?),
    };
    let (shortest, longest, usual) = TTL_MS;
    let ttl = if asked.ttl_ms == 0 { usual } else { u64::from(asked.ttl_ms) };
    if !(shortest..=longest).contains(&ttl) {
        return Err(invalid(format!("ttl: is {} s, expected 1m to 24h", ttl / 1000)));
    }
    let root = door.authority.issuer().map_err(|error| failed(&error))?;
    let made = door.tokens.create(root, service, ttl, clock::unix_ms()).await;
    let (token, kept) = made.map_err(|error| match error {
        CreateError::TooMany => Status::resource_exhausted(error.to_string()),
        CreateError::NotMade(_) | CreateError::Store(_) => Status::unavailable(error.to_string()),
    })?;
    tracing::info!(token = kept.id, service = asked.service, ttl_s = ttl / 1000, "join token made");
    Ok(pb::TokenCreated { token: token.text().to_string(), view: Some(view(kept)) })
}

pub(crate) async fn token_list(shared: &Shared) -> Result<pb::TokenListAnswer, Status> {
    let tokens = door(shared)?.tokens.list(clock::unix_ms()).await;
    let tokens = tokens.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(pb::TokenListAnswer { token: tokens.into_iter().map(view).collect() })
}

pub(crate) async fn token_revoke(shared: &Shared, id: &str) -> Result<pb::TokenView, Status> {
    let revoked = door(shared)?.tokens.revoke(id).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let kept = revoked.ok_or_else(|| Status::not_found(format!("there is no join token `{id}`")))?;
    tracing::info!(token = kept.id, "join token revoked");
    Ok(view(kept))
}

fn view(kept: Kept) -> pb::TokenView {
    let (used_unix_ms, used_by) = kept.used.map_or((0, Vec::new()), |used| (used.unix_ms, used.holders));
    pb::TokenView {
        id: kept.id,
        service: kept.service.map(|name| name.to_string()).unwrap_or_default(),
        created_unix_ms: kept.created_unix_ms,
        expires_unix_ms: kept.expires_unix_ms,
        used_unix_ms,
        used_by,
    }
}

pub(crate) async fn ca_status(shared: &Shared) -> Result<pb::CaView, Status> {
    let door = door(shared)?;
    let reported = reported(shared).await.ok_or_else(ending)?;
    door.authority.view(&reported).await.map_err(|error| failed(&error))
}

pub(crate) async fn ca_rotate(shared: &Shared, asked: pb::CaRotateRequest) -> Result<pb::CaView, Status> {
    let authority = &door(shared)?.authority;
    let outcome = if asked.abort { authority.abort().await } else { authority.rotate(asked.fast).await };
    outcome.map_err(|error| failed(&error))?;
    tracing::info!(fast = asked.fast, abort = asked.abort, "rotation of the root asked for");
    ca_status(shared).await
}

pub(crate) fn ca_export(shared: &Shared) -> Result<pb::CaPem, Status> {
    let pem = door(shared)?.authority.export().map_err(|error| failed(&error))?;
    tracing::warn!("the root's key was exported");
    Ok(pem)
}

pub(crate) async fn ca_import(shared: &Shared, pem: &pb::CaPem) -> Result<pb::CaView, Status> {
    door(shared)?.authority.import(&pem.certificate, &pem.key).await.map_err(|error| failed(&error))?;
    tracing::warn!("a root was imported");
    ca_status(shared).await
}

pub(crate) async fn identity(shared: &Shared, wanted: &[String]) -> Result<pb::IdentityAnswer, Status> {
    let door = door(shared)?;
    let (reply, answer) = oneshot::channel();
    shared.asks.send(Ask::Identities(reply)).await.map_err(|_| ending())?;
    let known = answer.await.map_err(|_| ending())?;
    let own = shared.credential.as_ref().map(|credential| (shared.name.clone(), Some(credential.report())));
    let all = own.into_iter().chain(known.into_iter().map(|one| (one.instance, one.identity)));
    let takes = |id: &str| {
        let is = |name: &String| name == id || id.split_once('@').is_some_and(|(instance, _)| instance == name);
        wanted.is_empty() || wanted.iter().any(is)
    };
    let mut instance: Vec<pb::InstanceIdentity> = all
        .filter(|(id, _)| takes(id))
        .map(|(instance, identity)| pb::InstanceIdentity { instance, identity: identity.as_ref().map(Into::into) })
        .collect();
    instance.sort_by(|a, b| a.instance.cmp(&b.instance));
    Ok(pb::IdentityAnswer {
        mesh: door.authority.mesh().to_string(),
        epoch: shared.snapshot.borrow().epoch().0,
        instance,
        root: door.authority.roots(),
        unix_ms: clock::unix_ms(),
    })
}

fn failed(error: &CaError) -> Status {
    match error {
        CaError::Unfit(_) => Status::failed_precondition(error.to_string()),
        CaError::Root(_) => invalid(error.to_string()),
        CaError::Store(_) | CaError::Broken(_) | CaError::Issue(_) => Status::unavailable(error.to_string()),
    }
}

fn invalid(message: String) -> Status {
    status::refusal(Reason::InvalidMessage, message)
}

fn ending() -> Status {
    Status::unavailable("this master is ending")
}
