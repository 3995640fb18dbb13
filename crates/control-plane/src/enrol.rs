//! The door of a mesh: join tokens become certificates, and certificates become newer ones.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use synego_identity::{Fingerprint, JoinToken, Peer, key_of_request};
use synego_model::{Identity, Reason, Role, ServiceName};
use synego_runtime::clock;
use synego_wire::{pb, status};
use tonic::Status;

use crate::authority::{AuthorityHandle, CaError, For, Given};
use crate::lockout::Lockout;
use crate::metrics::DoorMetrics;
use crate::tokens::{Joiner, TokenBook, TokenRefusal};

/// Most that join by one token.
const MAX_APPLICANTS: usize = 256;
/// Longest name of a holder, in bytes.
const MAX_HOLDER: usize = 160;

/// Who asks on a connection of the mesh API.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// A part of this very process.
    InProcess,
    /// Somebody on the network.
    Peer(Peer),
}

impl Caller {
    fn source(&self) -> IpAddr {
        match self {
            Self::InProcess => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Peer(peer) => peer.address.ip(),
        }
    }
}

/// Whether `caller` may speak for `service` on a mesh of certificates.
///
/// # Errors
/// `not_enrolled` without a certificate, `denied` with another one's.
pub(crate) fn speaks_for(caller: &Caller, service: &ServiceName) -> Result<(), Status> {
    let Caller::Peer(peer) = caller else { return Ok(()) };
    match peer.id.as_ref().map(|id| &id.role) {
        Some(Role::Service(own)) if own == service => Ok(()),
        Some(_) => {
            let message = format!("the certificate is that of {}, not of the service {service}", shown(peer));
            Err(status::refusal(Reason::Denied, message))
        }
        None => Err(not_enrolled("a link needs a certificate")),
    }
}

fn shown(peer: &Peer) -> String {
    peer.id.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string)
}

fn not_enrolled(what: &str) -> Status {
    let help = "enrol with a token of `synego token create`: `--token-file FILE`";
    status::refusal(Reason::NotEnrolled, format!("{what}; {help}"))
}

/// Gives certificates to those who may have one.
pub(crate) struct Door {
    pub(crate) authority: AuthorityHandle,
    pub(crate) tokens: TokenBook,
    lockout: Mutex<Lockout>,
    pub(crate) metrics: DoorMetrics,
}

impl Door {
    pub(crate) fn new(authority: AuthorityHandle, metrics: DoorMetrics) -> Arc<Self> {
        let tokens = TokenBook::new(authority.store());
        Arc::new(Self { authority, tokens, lockout: Mutex::default(), metrics })
    }

    /// The first certificates of a machine, for a token.
    ///
    /// # Errors
    /// The refusals of `Mesh.Enrol`.
    pub(crate) async fn enrol(&self, caller: &Caller, asked: pb::EnrolRequest) -> Result<pb::Certificates, Status> {
        let source = caller.source();
        if let Err(left_ms) = self.lockout().check(source, monotonic_ms()) {
            self.metrics.refused("locked_out");
            let message = format!("too many wrong tokens: try again in {} s", left_ms.div_ceil(1000));
            return Err(status::refusal(Reason::RateLimited, message));
        }
        self.same_mesh(&asked.mesh)?;
        if !(1..=MAX_APPLICANTS).contains(&asked.applicant.len()) {
            let message = format!("applicant: has {} entries, expected 1 to {MAX_APPLICANTS}", asked.applicant.len());
            return Err(invalid(message));
        }
        // Before anything costly: whoever has no token is to get no signature looked at.
        let token = match JoinToken::parse(&asked.token) {
            Ok(token) => self.tokens.known(token.hash()).await.map(|()| token),
            Err(_) => Err(TokenRefusal::Unknown),
        };
        let token = token.map_err(|refusal| self.token_refused(source, &refusal))?;
        let mut joiners = Vec::with_capacity(asked.applicant.len());
        for applicant in &asked.applicant {
            let (service, key) = read(applicant)?;
            joiners.push(Joiner { service, holder: applicant.holder.clone(), key });
        }
        let redeemed = self.tokens.redeem(token.hash(), &joiners, clock::unix_ms()).await;
        redeemed.map_err(|refusal| self.token_refused(source, &refusal))?;
        let mut certificates = Vec::with_capacity(joiners.len());
        for (joiner, applicant) in joiners.iter().zip(&asked.applicant) {
            certificates.push(self.issue(&joiner.service, applicant, false).await?);
            tracing::info!(holder = joiner.holder, service = %joiner.service, source = %source, "enrolled");
            self.metrics.issued("enrol");
        }
        Ok(self.certificates(certificates))
    }

    /// A new certificate for whom the caller proves to be.
    ///
    /// # Errors
    /// The refusals of `Mesh.Renew`.
    pub(crate) async fn renew(&self, caller: &Caller, asked: pb::RenewRequest) -> Result<pb::Certificates, Status> {
        let applicant = asked.applicant.unwrap_or_default();
        let (service, _) = read(&applicant)?;
        speaks_for(caller, &service)?;
        let certificate = self.issue(&service, &applicant, matches!(caller, Caller::InProcess)).await?;
        tracing::debug!(holder = applicant.holder, %service, "certificate renewed");
        self.metrics.issued("renew");
        Ok(self.certificates(vec![certificate]))
    }

    fn token_refused(&self, source: IpAddr, refusal: &TokenRefusal) -> Status {
        if let TokenRefusal::Store(error) = refusal {
            tracing::error!(cause = %error, "a join token could not be looked at");
            return Status::unavailable(error.to_string());
        }
        self.lockout().failed(source, monotonic_ms());
        self.metrics.refused("token");
        tracing::warn!(source = %source, cause = %refusal, "join token refused");
        status::refusal(Reason::TokenRefused, format!("{refusal}; make another: `synego token create`"))
    }

    async fn issue(&self, service: &ServiceName, of: &pb::Applicant, local: bool) -> Result<pb::Certificate, Status> {
        let identity = Identity::service(self.authority.mesh().clone(), service.clone());
        let to = For { identity: &identity, holder: &of.holder, local };
        self.authority.issue(&of.request, to).await.map(certificate).map_err(|error| {
            tracing::error!(cause = %error, holder = of.holder, "certificate not issued");
            self.metrics.refused("issue");
            match error {
                CaError::Issue(error) => invalid(format!("request: {error}")),
                other => Status::unavailable(other.to_string()),
            }
        })
    }

    fn certificates(&self, certificate: Vec<pb::Certificate>) -> pb::Certificates {
        pb::Certificates { mesh: self.authority.mesh().to_string(), certificate, trust: Some(self.authority.trust()) }
    }

    fn same_mesh(&self, asked: &str) -> Result<(), Status> {
        let ours = self.authority.mesh();
        if asked.is_empty() || asked == ours.as_str() {
            return Ok(());
        }
        Err(status::refusal(Reason::WrongMesh, format!("who asks belongs to {asked}, this master to {ours}")))
    }

    fn lockout(&self) -> std::sync::MutexGuard<'_, Lockout> {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A certificate as it travels.
fn certificate(given: Given) -> pb::Certificate {
    pb::Certificate {
        chain: given.chain,
        not_before_unix_ms: given.not_before_unix_ms,
        not_after_unix_ms: given.not_after_unix_ms,
    }
}

/// Whose certificate is asked for, and for which key.
fn read(applicant: &pb::Applicant) -> Result<(ServiceName, Fingerprint), Status> {
    let service = applicant.service.parse::<ServiceName>().map_err(|error| invalid(format!("service: {error}")))?;
    let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let holder = applicant.holder.split_once('@').filter(|(of, node)| {
        let sound = |text: &str| !text.is_empty() && text.bytes().all(is_name);
        sound(of) && sound(node) && applicant.holder.len() <= MAX_HOLDER
    });
    if holder.is_none() {
        return Err(invalid("holder: expected an instance such as `users-1@vm1`".to_owned()));
    }
    let key = key_of_request(&applicant.request).map_err(|error| invalid(format!("request: {error}")))?;
    Ok((service, Fingerprint::of(&key)))
}

fn invalid(message: String) -> Status {
    status::refusal(Reason::InvalidMessage, message)
}

/// Time that no clock setting turns back, for windows of failures.
pub(crate) fn monotonic_ms() -> u64 {
    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let began = *BEGAN.get_or_init(clock::now);
    u64::try_from(clock::now().saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::AuthorityConfig;
    use crate::store::RedbStore;
    use synego_identity::{PrivateKey, SealingKey};
    use synego_runtime::telemetry::Metrics;

    async fn door(folder: &tempfile::TempDir) -> Arc<Door> {
        let store = RedbStore::open(&folder.path().join("s/store.redb")).expect("a store");
        let authority = AuthorityHandle::open(AuthorityConfig {
            store: Arc::new(store),
            key: SealingKey::generate().expect("a key"),
            mesh: "shop".parse().expect("a name"),
            life: Duration::from_secs(60),
            first_root: None,
        });
        Door::new(authority.await.expect("an authority"), DoorMetrics::new(&Metrics::new("test")))
    }

    fn from(address: &str, id: Option<&str>) -> Caller {
        let address = address.parse().expect("an address");
        Caller::Peer(Peer { address, id: id.map(|id| Identity::parse(id).expect("an id")) })
    }

    fn applicant(service: &str, holder: &str) -> pb::Applicant {
        let request = PrivateKey::generate().and_then(|key| key.request()).expect("a request");
        pb::Applicant { service: service.into(), holder: holder.into(), request }
    }

    fn asking(token: &str) -> pb::EnrolRequest {
        let applicant = vec![applicant("users", "users-1@vm2")];
        pb::EnrolRequest { token: token.into(), mesh: String::new(), applicant }
    }

    async fn token(door: &Door) -> String {
        let root = door.authority.issuer().expect("a root");
        door.tokens.create(root, None, 60_000, clock::unix_ms()).await.expect("a token").0.text().to_string()
    }

    #[tokio::test]
    async fn guessing_of_join_tokens_is_locked_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let door = door(&folder).await;
        let good = token(&door).await;
        let guesser = from("10.0.0.9:1", None);
        for _ in 0..10 {
            let guess = JoinToken::generate(door.authority.issuer().expect("a root")).expect("a token");
            let refused = door.enrol(&guesser, asking(&guess.text())).await.expect_err("a guess");
            assert_eq!(status::reason(&refused), Some(Reason::TokenRefused), "{refused}");
            assert!(!refused.message().contains(guess.text().as_str()));
        }
        let locked = door.enrol(&guesser, asking(&good)).await.expect_err("locked out");
        assert_eq!(status::reason(&locked), Some(Reason::RateLimited), "{locked}");
        let other = door.enrol(&from("10.0.0.8:1", None), asking(&good)).await;
        assert_eq!(other.expect("nobody else is").certificate.len(), 1);
    }

    #[tokio::test]
    async fn who_has_a_certificate_renews_its_own_name_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let door = door(&folder).await;
        let users = from("10.0.0.9:1", Some("spiffe://shop/svc/users"));
        let own = pb::RenewRequest { applicant: Some(applicant("users", "users-1@vm2")) };
        assert!(door.renew(&users, own).await.is_ok());
        let other = || pb::RenewRequest { applicant: Some(applicant("orders", "orders-1@vm2")) };
        let refused = door.renew(&users, other()).await.expect_err("another's name");
        assert_eq!(status::reason(&refused), Some(Reason::Denied));
        let nobody = door.renew(&from("10.0.0.9:1", None), other()).await.expect_err("no certificate");
        assert_eq!(status::reason(&nobody), Some(Reason::NotEnrolled));
        let master = from("10.0.0.9:1", Some("spiffe://shop/master"));
        assert!(door.renew(&master, other()).await.is_err(), "a master renews no service");
        assert!(door.renew(&Caller::InProcess, other()).await.is_ok());
    }

    #[tokio::test]
    async fn certificate_request_that_asks_for_a_name_gets_the_name_of_the_token_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let door = door(&folder).await;
        let good = token(&door).await;
        for holder in ["", "@", "users@", "@vm1", "users-1", "users-1@vm1/x", "../x@vm1", "Users@vm1"] {
            let asked = pb::EnrolRequest { applicant: vec![applicant("users", holder)], ..asking(&good) };
            let refused = door.enrol(&from("10.0.0.9:1", None), asked).await.expect_err(holder);
            assert_eq!(status::reason(&refused), Some(Reason::InvalidMessage), "{holder}");
        }
        let mut garbage = asking(&token(&door).await);
        garbage.applicant[0].request = vec![0x30, 0x03, 1, 2, 3];
        let refused = door.enrol(&from("10.0.0.9:1", None), garbage).await.expect_err("no request");
        assert_eq!(status::reason(&refused), Some(Reason::InvalidMessage));
        let other = pb::EnrolRequest { mesh: "blog".into(), ..asking(&token(&door).await) };
        let refused = door.enrol(&from("10.0.0.9:1", None), other).await.expect_err("another mesh");
        assert_eq!(status::reason(&refused), Some(Reason::WrongMesh));
    }
}
