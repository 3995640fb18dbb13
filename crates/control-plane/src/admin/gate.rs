//! Who may ask the admin API what: every call passes here before anything of its body is read.
//!
//! On the Unix socket the user of the process (and root) may do everything: the socket lets nobody else in. Over TCP a page
//! in a browser of this machine could ask too, so a call must be of a form that no page can send on its own, and from
//! no other origin; and a token, or under TLS an operator's certificate, says who asks. Without either a process of the
//! same machine may look at the mesh, which is what `/metrics` shows anyway, and no more; from elsewhere nobody may.

mod form;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use synego_identity::Peer;
use synego_model::{Reason, Role};
use synego_runtime::admin::ApiPeer;
use synego_wire::{pb, status};

use self::form::{Refused, answer, authority, form, origin, token};
use super::logins::Login;
use crate::enrol::monotonic_ms;
use crate::master::Shared;

/// What one who asks may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Right {
    /// See how the mesh is.
    Look,
    /// See everything, lines of output included.
    Read,
    /// Change everything.
    Write,
}

impl Right {
    fn word(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// What a method needs. One that is not named here needs the most.
    fn needed(method: &str) -> Self {
        match method {
            "Get" | "Watch" | "WhoAmI" => Self::Look,
            // A dry run changes nothing; a real one asks for more as soon as it is known to be one.
            "Logs" | "Apply" | "ListLogins" | "TokenList" | "CaStatus" | "Identity" => Self::Read,
            _ => Self::Write,
        }
    }
}

impl From<Right> for pb::AdminRole {
    fn from(right: Right) -> Self {
        match right {
            Right::Look => Self::Look,
            Right::Read => Self::Read,
            Right::Write => Self::Write,
        }
    }
}

/// Where a call comes from.
#[derive(Debug, Clone)]
enum Whence {
    /// A user of this machine, at the Unix socket.
    User(u32),
    /// Somebody at a port without TLS, which only this machine has.
    Near(SocketAddr),
    /// Somebody at a port under TLS.
    Under(Peer),
    /// Nobody said: a mistake of the program.
    Unknown,
}

impl Whence {
    fn of(extensions: &Extensions) -> Self {
        if let Some(UnderTls(peer)) = extensions.get::<UnderTls>() {
            return Self::Under(peer.clone());
        }
        match extensions.get::<ApiPeer>() {
            Some(ApiPeer::User(uid)) => Self::User(*uid),
            Some(ApiPeer::Net(address)) => Self::Near(*address),
            None => Self::Unknown,
        }
    }

    fn source(&self) -> Option<IpAddr> {
        match self {
            Self::Near(address) => Some(address.ip()),
            Self::Under(peer) => Some(peer.address.ip()),
            Self::User(_) | Self::Unknown => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::User(uid) => format!("user {uid}"),
            Self::Near(address) => address.to_string(),
            Self::Under(Peer { address, id: Some(id) }) => format!("{id} at {address}"),
            Self::Under(peer) => peer.address.to_string(),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

/// Who connected to a port under TLS; in the extensions of each request there.
#[derive(Debug, Clone)]
pub(super) struct UnderTls(pub(super) Peer);

/// Who asks; in the extensions of each request that passed.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// In words: the name of a token, an operator, or the user.
    pub(crate) who: String,
    pub(crate) right: Right,
    /// When its token or certificate ends; 0: it has none.
    pub(crate) expires_unix_ms: u64,
}

/// Lets a call pass to its method, or refuses it; what changes something is written down.
pub(super) async fn pass(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let from = Whence::of(request.extensions());
    let path = request.uri().path().to_owned();
    let method = path.rsplit('/').next().unwrap_or_default();
    let needed = Right::needed(method);
    let known = match form(&from, &request) {
        Ok(()) => asker(&shared, &from, token(request.headers()), needed, method).await,
        Err(refused) => Err(refused),
    };
    let asker = match known {
        Ok(asker) => asker,
        Err(refused) => return refuse(&shared, &from, method, &refused, request.headers()),
    };
    // An apply is written down by itself, since only it knows whether it changes anything.
    let is_change = needed == Right::Write;
    let before = is_change.then(|| shared.digest());
    let who = asker.who.clone();
    request.extensions_mut().insert(asker);
    let answer = next.run(request).await;
    if let Some(before) = before {
        let outcome = outcome(answer.headers());
        shared.audit.change(&who, method, &outcome, &before, &shared.digest());
    }
    answer
}

/// Lets those see the pages of a port under TLS who may see anything there: from other machines these are not for all.
pub(super) async fn page(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let from = Whence::of(request.extensions());
    let path = request.uri().path().to_owned();
    // Whoever watches over this process learns whether it is there, and no more.
    let is_health = matches!(path.as_str(), "/livez" | "/readyz" | "/healthz");
    // Under whichever name: no browser takes the certificate of a master for that of a host.
    let known = match origin(authority(request.uri(), request.headers()), request.headers()) {
        Ok(()) if is_health => return next.run(request).await,
        Ok(()) => asker(&shared, &from, token(request.headers()), Right::Look, &path).await,
        Err(refused) => Err(refused),
    };
    match known {
        Ok(_) => next.run(request).await,
        Err(refused) => refuse(&shared, &from, &path, &refused, request.headers()),
    }
}

fn refuse(shared: &Shared, from: &Whence, what: &str, refused: &Refused, asked: &HeaderMap) -> Response {
    shared.metrics.refused("admin");
    let from = from.shown();
    tracing::warn!(from, method = what, reason = refused.reason.word(), cause = refused.message, "admin call refused");
    answer(refused, asked)
}

/// The word for what came of a call, from the head of its answer.
fn outcome(headers: &HeaderMap) -> String {
    let code = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<i32>().ok());
    match code {
        None | Some(0) => "done".to_owned(),
        Some(code) => format!("refused: {}", tonic::Code::from_i32(code).description()),
    }
}

async fn asker(
    shared: &Shared,
    from: &Whence,
    token: Option<&str>,
    needed: Right,
    method: &str,
) -> Result<Asker, Refused> {
    let refused = |message: String| Err(Refused::new(Reason::Unauthenticated, message));
    let asker = match (from, token) {
        (Whence::User(uid), _) => Asker { who: format!("user {uid}"), right: Right::Write, expires_unix_ms: 0 },
        (Whence::Under(Peer { id: Some(id), .. }), _) => match (&id.role, shared.logins.operator(id).await) {
            (Role::Operator(_), Some(login)) => login.into(),
            _ => return refused(format!("{id} is no operator that is known here: unknown, revoked or expired")),
        },
        (_, Some(token)) => of_token(shared, from, token).await?.into(),
        (Whence::Near(address), None) if address.ip().is_loopback() => {
            Asker { who: "anyone of this machine".into(), right: Right::Look, expires_unix_ms: 0 }
        }
        _ => return refused("a token or an operator's certificate says who asks: `synego login`".into()),
    };
    if asker.right >= needed { Ok(asker) } else { Err(lacks(&asker, needed, method)) }
}

/// Whose token this is. Who guesses is not listened to for a while.
async fn of_token(shared: &Shared, from: &Whence, token: &str) -> Result<Login, Refused> {
    let source = from.source();
    let lockout = || shared.guesses.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Err(left_ms)) = source.map(|source| lockout().check(source, monotonic_ms())) {
        let seconds = left_ms.div_ceil(1000);
        let message = format!("too many wrong tokens: try again in {seconds} s");
        return Err(Refused { retry_after_s: Some(seconds), ..Refused::new(Reason::RateLimited, message) });
    }
    match shared.logins.find(token).await {
        Some(login) => Ok(login),
        None => {
            if let Some(source) = source {
                lockout().failed(source, monotonic_ms());
            }
            let message = "the token is not good: unknown, revoked or expired";
            Err(Refused::new(Reason::Unauthenticated, message.into()))
        }
    }
}

impl From<Login> for Asker {
    fn from(login: Login) -> Self {
        Self { who: login.name, right: login.right, expires_unix_ms: login.expires_unix_ms }
    }
}

/// The refusal of one who may do less than a call needs.
fn lacks(asker: &Asker, needed: Right, method: &str) -> Refused {
    if asker.right == Right::Look {
        let message = format!(
            "{method} over TCP needs a token: `synego login`, or ask at the Unix socket of the master's own machine"
        );
        return Refused::new(Reason::Unauthenticated, message);
    }
    let (right, needed) = (asker.right.word(), needed.word());
    Refused::new(Reason::Denied, format!("{} may `{right}`, {method} needs `{needed}`", asker.who))
}

/// Whether one who passed may also change something.
///
/// # Errors
/// The refusal, as a status.
pub(super) fn may_change(asker: Option<&Asker>, method: &str) -> Result<String, tonic::Status> {
    match asker {
        Some(asker) if asker.right >= Right::Write => Ok(asker.who.clone()),
        Some(asker) => {
            let refused = lacks(asker, Right::Write, method);
            Err(status::refusal(refused.reason, refused.message))
        }
        // Nothing reaches a method but through the gate.
        None => Err(status::refusal(Reason::Internal, "nobody said who asks")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_harmless_needs_the_most() {
        for (method, needed) in [
            ("Get", Right::Look),
            ("Watch", Right::Look),
            ("Logs", Right::Read),
            ("Apply", Right::Read),
            ("Down", Right::Write),
            ("IssueLogin", Right::Write),
            ("RevokeLogin", Right::Write),
            ("IssueOperator", Right::Write),
            ("CaExport", Right::Write),
            ("Reload", Right::Write),
            ("Drain", Right::Write),
            ("Scale", Right::Write),
            ("SomethingNew", Right::Write),
        ] {
            assert_eq!(Right::needed(method), needed, "{method}");
        }
        assert!(Right::Look < Right::Read && Right::Read < Right::Write);
    }
}
