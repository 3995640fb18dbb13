//! By what people and tools are known to the admin API over TCP: tokens, of which only hashes are kept, and certificates
//! of operators, of which only the names are kept and what they may do.

use std::sync::Arc;
use std::time::Duration;

use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use synego_identity::{Digest, Fingerprint};
use synego_model::{Identity, Reason, Role, ServiceName};
use synego_runtime::clock;
use synego_wire::{pb, status};
use tonic::Status;

use super::gate::Right;
use crate::authority::{AuthorityHandle, CaError, unix_ms};
use crate::store::{Expected, Store, StoreError};

/// What a token begins with, so that a search for secrets finds one that went astray.
const PREFIX: &str = "synego-login-";
/// Random bytes of a token.
const SECRET: usize = 32;
/// Below which keys they are kept, each under the hash of its text.
const KEYS: &str = "logins/";
/// Below which keys it is kept what operators may do, each under its name.
const OPERATORS: &str = "operators/";
/// What an operator's id begins with, to be told from those of tokens.
const OPERATOR: &str = "operator/";
/// Seconds that a token is good: shortest, longest, and when nothing was said.
const TTL_S: (u32, u32, u32) = (60, 31_536_000, 2_592_000);
/// The same of an operator's certificate.
const OPERATOR_TTL_S: (u32, u32, u32) = (600, 2_592_000, 86_400);
/// Most tokens that are kept.
const MOST: usize = 1_000;
/// Longest name.
const MAX_NAME: usize = 63;

/// The tokens of a master. Cheap to clone.
#[derive(Clone, Default)]
pub struct LoginBook(Option<Arc<dyn Store>>);

/// What is kept of a token, or of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    id: String,
    pub(crate) name: String,
    pub(crate) right: Right,
    created_unix_ms: u64,
    pub(crate) expires_unix_ms: u64,
}

impl From<&Login> for pb::LoginView {
    fn from(login: &Login) -> Self {
        Self {
            id: login.id.clone(),
            name: login.name.clone(),
            role: pb::AdminRole::from(login.right).into(),
            created_unix_ms: login.created_unix_ms,
            expires_unix_ms: login.expires_unix_ms,
            kind: if login.id.starts_with(OPERATOR) { "certificate" } else { "token" }.to_owned(),
        }
    }
}

impl LoginBook {
    /// Keeps them in `store`. Without one ([`Self::default`]) there are none, and none can be made.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(Some(store))
    }

    fn store(&self) -> Result<&Arc<dyn Store>, Status> {
        self.0.as_ref().ok_or_else(|| Status::failed_precondition("this master keeps no state, so it knows no tokens"))
    }

    /// Whose token this is; `None`: nobody's, or it is over.
    pub(crate) async fn find(&self, token: &str) -> Option<Login> {
        if !token.starts_with(PREFIX) {
            return None;
        }
        let found = self.0.as_ref()?.get(&key_of(token)).await;
        let entry = found.inspect_err(|error| tracing::error!(cause = %error, "tokens cannot be read")).ok()??;
        let login: Login = serde_json::from_slice(&entry.value).ok()?;
        (login.expires_unix_ms > clock::unix_ms()).then_some(login)
    }

    /// What the operator of a certificate may do; `None`: nothing, it is not known or was revoked.
    pub(crate) async fn operator(&self, id: &Identity) -> Option<Login> {
        let Role::Operator(name) = &id.role else { return None };
        let found = self.0.as_ref()?.get(&format!("{OPERATORS}{name}")).await;
        let entry = found.inspect_err(|error| tracing::error!(cause = %error, "operators cannot be read")).ok()??;
        let login: Login = serde_json::from_slice(&entry.value).ok()?;
        (login.expires_unix_ms > clock::unix_ms()).then_some(login)
    }

    /// A certificate for an operator, who is known from now on.
    ///
    /// # Errors
    /// What is wrong with the request, or that the store or the authority failed.
    pub(super) async fn issue_operator(
        &self,
        authority: &AuthorityHandle,
        request: &pb::IssueOperatorRequest,
    ) -> Result<pb::IssuedOperator, Status> {
        let name: ServiceName = request.name.parse().map_err(|error| invalid(format!("name: {error}")))?;
        let right = right_of(request.role())?;
        let ttl_s = ttl_of(request.ttl_s, OPERATOR_TTL_S)?;
        let id = Identity { mesh: authority.mesh().clone(), role: Role::Operator(name.clone()) };
        let life = Duration::from_secs(u64::from(ttl_s));
        let issued = authority.issue_operator(&request.request, &id, life).map_err(|error| match error {
            CaError::Issue(error) => invalid(format!("request: {error}")),
            other => Status::unavailable(other.to_string()),
        })?;
        let login = Login {
            id: format!("{OPERATOR}{name}"),
            name: format!("{OPERATOR}{name}"),
            right,
            created_unix_ms: clock::unix_ms(),
            expires_unix_ms: unix_ms(issued.not_after),
        };
        let value = serde_json::to_vec(&login).map_err(|error| Status::internal(error.to_string()))?;
        // A certificate from before, of the same name, may from now on what this one may.
        self.store()?.put(&format!("{OPERATORS}{name}"), value, Expected::Any).await.map_err(|error| failed(&error))?;
        Ok(pb::IssuedOperator {
            certificate: issued.certificate_der,
            root: authority.trust().root,
            login: Some((&login).into()),
        })
    }

    /// A token; `root`: of the mesh, by which whoever has the token knows its masters.
    pub(super) async fn issue(
        &self,
        request: &pb::IssueLoginRequest,
        root: Option<Fingerprint>,
    ) -> Result<pb::IssuedLogin, Status> {
        let visible = request.name.chars().all(|letter| letter.is_ascii_graphic());
        if request.name.is_empty() || request.name.len() > MAX_NAME || !visible {
            return Err(invalid(format!("name: expected 1 to {MAX_NAME} visible characters")));
        }
        let right = right_of(request.role())?;
        let ttl_s = ttl_of(request.ttl_s, TTL_S)?;
        if self.all().await?.len() >= MOST {
            let message = format!("{MOST} tokens are good already: revoke some, `synego login --list` shows them");
            return Err(Status::resource_exhausted(message));
        }
        let mut secret = [0_u8; SECRET];
        rand::rng().fill_bytes(&mut secret);
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = match root {
            Some(root) => format!("{PREFIX}1.{root}.{secret}"),
            None => format!("{PREFIX}{secret}"),
        };
        let now = clock::unix_ms();
        let login = Login {
            id: Digest::of(token.as_bytes()).short(),
            name: request.name.clone(),
            right,
            created_unix_ms: now,
            expires_unix_ms: now + u64::from(ttl_s) * 1_000,
        };
        let value = serde_json::to_vec(&login).map_err(|error| Status::internal(error.to_string()))?;
        self.store()?.put(&key_of(&token), value, Expected::Absent).await.map_err(|error| failed(&error))?;
        Ok(pb::IssuedLogin { token, login: Some((&login).into()) })
    }

    pub(super) async fn list(&self) -> Result<pb::LoginList, Status> {
        let mut all: Vec<Login> = self.all().await?.into_iter().map(|(_, login)| login).collect();
        all.sort_by(|a, b| (&a.name, a.created_unix_ms).cmp(&(&b.name, b.created_unix_ms)));
        Ok(pb::LoginList { login: all.iter().map(Into::into).collect() })
    }

    pub(super) async fn revoke(&self, id: &str) -> Result<pb::RevokedLogin, Status> {
        let found = self.all().await?.into_iter().find(|(_, login)| login.id == id);
        let Some((key, login)) = found else {
            return Err(Status::not_found(format!("no token has the id `{id}`")));
        };
        self.store()?.remove(&key, Expected::Any).await.map_err(|error| failed(&error))?;
        Ok(pb::RevokedLogin { login: Some((&login).into()) })
    }

    /// Those that are good, with their keys; what is over is forgotten.
    async fn all(&self) -> Result<Vec<(String, Login)>, Status> {
        let store = self.store()?;
        let now = clock::unix_ms();
        let mut good = Vec::new();
        let mut entries = store.list(KEYS).await.map_err(|error| failed(&error))?;
        entries.extend(store.list(OPERATORS).await.map_err(|error| failed(&error))?);
        for entry in entries {
            match serde_json::from_slice::<Login>(&entry.value) {
                Ok(login) if login.expires_unix_ms > now => good.push((entry.key, login)),
                _ => {
                    let _changed_meanwhile = store.remove(&entry.key, Expected::Revision(entry.revision)).await;
                }
            }
        }
        Ok(good)
    }
}

fn right_of(role: pb::AdminRole) -> Result<Right, Status> {
    match role {
        pb::AdminRole::Unspecified | pb::AdminRole::Write => Ok(Right::Write),
        pb::AdminRole::Read => Ok(Right::Read),
        pb::AdminRole::Look => Err(invalid("role: expected `read` or `write`".into())),
    }
}

fn ttl_of(asked_s: u32, (shortest, longest, usual): (u32, u32, u32)) -> Result<u32, Status> {
    let ttl_s = if asked_s == 0 { usual } else { asked_s };
    if (shortest..=longest).contains(&ttl_s) {
        return Ok(ttl_s);
    }
    Err(invalid(format!("ttl_s: is {ttl_s}, expected {shortest} to {longest}")))
}

fn invalid(message: String) -> Status {
    status::refusal(Reason::InvalidMessage, message)
}

/// The hash of the whole text: 256 random bits need no salt and no slow hash.
fn key_of(token: &str) -> String {
    format!("{KEYS}{}", Digest::of(token.as_bytes()))
}

fn failed(error: &StoreError) -> Status {
    Status::internal(error.to_string())
}
