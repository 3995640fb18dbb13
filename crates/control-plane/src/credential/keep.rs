//! The keeping of certificates: the first one, and every one after it.

use std::path::Path;
use std::time::Duration;

use rand::Rng as _;
use synego_identity::{Connector, Credential, JoinToken, Own, PrivateKey};
use synego_model::{Identity, MeshName, Role};
use synego_runtime::lifecycle::Stop;
use synego_runtime::{clock, tasks};
use synego_wire::pb;

use super::ask::{self, AskError};
use super::disk::{self, Kept};
use super::{CredentialError, CredentialHandle, Held, KeeperConfig, Renewal, Source};
use crate::authority::For;
use crate::metrics::CredentialMetrics;
use crate::uplink::MasterAddress;

/// First and longest wait before the next attempt.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Longest sleep at a time: the wall clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(30);
/// Over which time those renew that were asked to do so at once.
const AT_ONCE_MS: u64 = 2_000;

/// Keeps one certificate, to be [`run`](Keeper::run).
pub struct Keeper {
    config: KeeperConfig,
    handle: CredentialHandle,
    metrics: CredentialMetrics,
    held: Held,
    /// At which part of its life this certificate is renewed.
    part: f64,
}

/// Returns once each of `configs` has a certificate: one that was kept, or a new one. All that need a token share one
/// enrolment, and with it the token.
///
/// - `within`: how long masters are asked; `None`: until `stop`.
///
/// # Errors
/// [`CredentialError`]: above all without a token for the first time.
pub async fn open(
    configs: Vec<KeeperConfig>,
    within: Option<Duration>,
    stop: &Stop,
) -> Result<Vec<Keeper>, CredentialError> {
    let opening = async {
        let mut last = String::new();
        let work = first(configs, &mut last);
        match within {
            None => work.await,
            Some(within) => match tokio::time::timeout(within, work).await {
                Ok(done) => done,
                Err(_) => Err(CredentialError::NotInTime { within, last }),
            },
        }
    };
    tokio::select! {
        done = opening => done,
        () = stop.stopped() => Err(CredentialError::Stopped),
    }
}

async fn first(configs: Vec<KeeperConfig>, last: &mut String) -> Result<Vec<Keeper>, CredentialError> {
    let mut keepers: Vec<Option<Keeper>> = Vec::with_capacity(configs.len());
    let mut joining = Vec::new();
    for (at, config) in configs.iter().enumerate() {
        let kept = kept(config).await?;
        let now = clock::unix_ms();
        let mut pending = None;
        if let Some(kept) = kept {
            match held(&kept).filter(|held| held.not_after_unix_ms > now) {
                Some(held) => {
                    keepers.push(Some(Keeper::new(config.clone(), &kept.mesh, held)?));
                    continue;
                }
                None => pending = Some(kept),
            }
        }
        keepers.push(None);
        match free(config) {
            Some(_) => keepers[at] = Some(own(config, last).await?),
            None => joining.push((at, pending)),
        }
    }
    if !joining.is_empty() {
        enrol(&configs, joining, &mut keepers, last).await?;
    }
    Ok(keepers.into_iter().flatten().collect())
}

/// Who gives a certificate to this process without asking who it is.
fn free(config: &KeeperConfig) -> Option<&Source> {
    match &config.source {
        Source::Authority(_) => Some(&config.source),
        Source::Masters(masters) => {
            let is_here = masters.iter().any(|master| matches!(master, MasterAddress::InProcess(_)));
            is_here.then_some(&config.source)
        }
    }
}

/// The first certificate of one that is believed.
async fn own(config: &KeeperConfig, last: &mut String) -> Result<Keeper, CredentialError> {
    let mut wait = BACKOFF.0;
    loop {
        let key = new_key()?;
        let given = match &config.source {
            Source::Authority(_) => from_authority(config, &key).await,
            Source::Masters(masters) => from_masters(config, masters, &Connector::plain(), &key).await,
        };
        match given {
            Ok(given) => {
                let (mesh, held) = received(given, key, config)?;
                save(config, &mesh, &held).await?;
                return Keeper::new(config.clone(), &mesh, held);
            }
            Err(refusal) if refusal.is_final() => return Err(CredentialError::Refused(refusal.to_string())),
            Err(unreached) => *last = unreached.to_string(),
        }
        tokio::time::sleep(tasks::jittered(wait)).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

/// The first certificates of all that need a token, by one enrolment.
async fn enrol(
    configs: &[KeeperConfig],
    joining: Vec<(usize, Option<Kept>)>,
    keepers: &mut [Option<Keeper>],
    last: &mut String,
) -> Result<(), CredentialError> {
    let mut keys = Vec::with_capacity(joining.len());
    for (at, pending) in &joining {
        let config = &configs[*at];
        // A key that was written down before an answer was lost is asked for again: the token knows it.
        let known = pending.as_ref().filter(|kept| kept.chain.is_empty());
        let key = match known.and_then(|kept| PrivateKey::from_pem(&kept.key).ok()) {
            Some(key) => key,
            None => {
                if config.token_file.is_none() {
                    return Err(no_token(config, pending.as_ref()));
                }
                let key = new_key()?;
                save_pending(config, &key).await?;
                key
            }
        };
        keys.push(key);
    }
    let (first, pending) = (&configs[joining[0].0], joining[0].1.as_ref());
    let Source::Masters(masters) = &first.source else { return Ok(()) };
    let file = first.token_file.clone().ok_or_else(|| no_token(first, pending))?;
    let token = read_token(&file).await?;
    let mesh = first.mesh.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut applicants = Vec::with_capacity(keys.len());
    for ((at, _), key) in joining.iter().zip(&keys) {
        applicants.push(applicant(&configs[*at], key)?);
    }
    let given = asked(masters, &token, &mesh, &applicants, last).await?;
    if given.certificate.len() != keys.len() {
        return Err(CredentialError::Refused("the master gave another number of certificates than asked".into()));
    }
    for (((at, _), key), certificate) in joining.iter().zip(keys).zip(given.certificate) {
        let config = &configs[*at];
        let one = pb::Certificates { certificate: vec![certificate], ..given_frame(&given.mesh, given.trust.as_ref()) };
        let (mesh, held) = received(one, key, config)?;
        save(config, &mesh, &held).await?;
        tracing::info!(holder = config.holder, mesh, "enrolled; the token is not needed again");
        keepers[*at] = Some(Keeper::new(config.clone(), &mesh, held)?);
    }
    Ok(())
}

fn given_frame(mesh: &str, trust: Option<&pb::Trust>) -> pb::Certificates {
    pb::Certificates { mesh: mesh.to_owned(), certificate: Vec::new(), trust: trust.cloned() }
}

/// Asks one master after the other until one answers.
async fn asked(
    masters: &[MasterAddress],
    token: &JoinToken,
    mesh: &str,
    applicants: &[pb::Applicant],
    last: &mut String,
) -> Result<pb::Certificates, CredentialError> {
    let mut wait = BACKOFF.0;
    loop {
        for master in masters {
            match ask::enrol(master, token, mesh, applicants.to_vec()).await {
                Ok(given) => return Ok(given),
                Err(refusal) if refusal.is_final() => return Err(CredentialError::Refused(refusal.to_string())),
                Err(error) => {
                    let error = error.to_string();
                    if *last != error {
                        tracing::warn!(cause = error, "not enrolled yet");
                        *last = error;
                    }
                }
            }
        }
        tokio::time::sleep(tasks::jittered(wait)).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

impl Keeper {
    fn new(config: KeeperConfig, mesh: &str, held: Held) -> Result<Self, CredentialError> {
        let mesh: MeshName = mesh.parse().map_err(|error| CredentialError::Refused(format!("{error}")))?;
        let own = Own::new(Identity { mesh, role: config.role.clone() });
        let handle = CredentialHandle::new(own);
        let metrics = CredentialMetrics::new(&config.metrics, &config.holder);
        let mut keeper = Self { config, handle, metrics, held, part: 0.5 };
        keeper.install()?;
        Ok(keeper)
    }

    /// The way to it, for those who use the certificate.
    #[must_use]
    pub fn handle(&self) -> CredentialHandle {
        self.handle.clone()
    }

    /// Puts what is held in force.
    fn install(&mut self) -> Result<(), CredentialError> {
        let own = self.handle.own();
        let failed = |error: synego_identity::InstallError| CredentialError::Refused(error.to_string());
        own.trust(&self.held.roots).map_err(failed)?;
        own.install(&self.held.credential).map_err(failed)?;
        self.part = rand::rng().random_range(0.45..0.55);
        self.metrics.ends(self.held.not_after_unix_ms);
        self.handle.set_renewal(Renewal { at_unix_ms: self.due(), error: String::new() });
        Ok(())
    }

    /// When the certificate in force is renewed: milliseconds since 1970-01-01 UTC.
    fn due(&self) -> u64 {
        let life = self.held.not_after_unix_ms.saturating_sub(self.held.since_unix_ms);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a life in milliseconds is far below 2^52")]
        let part = (life as f64 * self.part) as u64;
        self.held.since_unix_ms + part
    }

    /// Renews until `stop`.
    pub async fn run(mut self, stop: Stop) {
        let mut trust = self.handle.trust();
        let mut authority = match &self.config.source {
            Source::Authority(handle) => Some(handle.watch()),
            Source::Masters(_) => None,
        };
        let mut at = self.due();
        let mut wait = BACKOFF.0;
        loop {
            let now = clock::unix_ms();
            if now >= at {
                let renewed = tokio::select! {
                    renewed = self.renew() => renewed,
                    () = stop.stopped() => return,
                };
                match renewed {
                    Ok(()) => {
                        wait = BACKOFF.0;
                        at = self.due();
                    }
                    Err(cause) => {
                        self.failed(cause, now);
                        at = clock::unix_ms() + millis(tasks::jittered(wait.min(self.patience())));
                        wait = (wait * 2).min(BACKOFF.1);
                    }
                }
                continue;
            }
            let nap = Duration::from_millis(at - now).min(NAP);
            tokio::select! {
                () = stop.stopped() => return,
                () = tokio::time::sleep(nap) => {}
                Ok(()) = trust.changed() => {
                    let told = trust.borrow_and_update().clone();
                    if let Some(told) = told {
                        at = at.min(self.follow(&told).await);
                    }
                }
                () = turned(&mut authority) => {
                    let told = authority.as_mut().map(|watched| watched.borrow_and_update().trust());
                    if let Some(told) = told {
                        self.handle.heard(&told);
                    }
                }
            }
        }
    }

    /// Takes up whom to trust; returns when the certificate is to be renewed for it.
    async fn follow(&mut self, told: &pb::Trust) -> u64 {
        if self.held.roots != told.root {
            self.held.roots.clone_from(&told.root);
            let own = self.handle.own();
            if let Err(error) = save(&self.config, own.identity().mesh.as_str(), &self.held).await {
                tracing::error!(holder = self.config.holder, cause = %error, "the roots cannot be kept");
            }
        }
        let issuer = self.handle.own().current().and_then(|shown| shown.issuer).map(|root| root.to_string());
        // Of a root that nobody trusts any more, or of one that is about to go.
        let is_stale = issuer.is_none() || (told.renew_now && issuer.as_deref() != Some(told.issuer.as_str()));
        if is_stale { clock::unix_ms() + rand::rng().random_range(0..AT_ONCE_MS) } else { u64::MAX }
    }

    /// The longest wait between two attempts: short lives leave less time.
    fn patience(&self) -> Duration {
        let life = self.held.not_after_unix_ms.saturating_sub(self.held.since_unix_ms);
        Duration::from_millis((life / 40).max(250))
    }

    async fn renew(&mut self) -> Result<(), String> {
        let key = PrivateKey::generate().map_err(|error| error.to_string())?;
        let given = match &self.config.source {
            Source::Authority(_) => from_authority(&self.config, &key).await,
            Source::Masters(masters) if free(&self.config).is_some() => {
                from_masters(&self.config, masters, &Connector::plain(), &key).await
            }
            Source::Masters(_) if self.held.not_after_unix_ms <= clock::unix_ms() => return self.enrol_again(key).await,
            Source::Masters(masters) => {
                from_masters(&self.config, masters, &Connector::mutual(self.handle.own()), &key).await
            }
        };
        self.take(given.map_err(|error| error.to_string())?, key).await
    }

    /// With a certificate that has ended nobody believes who this is: only a token does.
    async fn enrol_again(&mut self, key: PrivateKey) -> Result<(), String> {
        let ended = || {
            format!(
                "the certificate has ended: make a new token on a machine of the mesh, `synego token create --out FILE`, and put it in {}",
                self.config.token_file.as_ref().map_or_else(|| "a file for `--token-file`".to_owned(), |file| file.display().to_string())
            )
        };
        let file = self.config.token_file.clone().ok_or_else(ended)?;
        let token = read_token(&file).await.map_err(|_| ended())?;
        let Source::Masters(masters) = &self.config.source else { return Err(ended()) };
        let mesh = self.handle.identity().mesh.to_string();
        let applicant = applicant(&self.config, &key).map_err(|error| error.to_string())?;
        let mut last = ended();
        for master in masters {
            match ask::enrol(master, &token, &mesh, vec![applicant.clone()]).await {
                Ok(given) => return self.take(given, key).await,
                Err(error) => last = format!("{}; {error}", ended()),
            }
        }
        Err(last)
    }

    async fn take(&mut self, given: pb::Certificates, key: PrivateKey) -> Result<(), String> {
        let told = given.trust.clone();
        let (mesh, held) = received(given, key, &self.config).map_err(|error| error.to_string())?;
        save(&self.config, &mesh, &held).await.map_err(|error| error.to_string())?;
        self.held = held;
        self.install().map_err(|error| error.to_string())?;
        if let Some(told) = told {
            self.handle.heard(&told);
        }
        self.metrics.renewed("done");
        tracing::info!(holder = self.config.holder, ends_unix_ms = self.held.not_after_unix_ms, "certificate renewed");
        Ok(())
    }

    fn failed(&self, cause: String, now: u64) {
        self.metrics.renewed("failed");
        let left_s = self.held.not_after_unix_ms.saturating_sub(now) / 1000;
        // The same cause again and again is told once.
        if self.handle.renewal().error != cause {
            if left_s == 0 {
                tracing::error!(holder = self.config.holder, cause, "no valid certificate any more");
            } else {
                tracing::warn!(holder = self.config.holder, cause, left_s, "certificate not renewed yet");
            }
        }
        self.handle.set_renewal(Renewal { at_unix_ms: now, error: cause });
    }
}

async fn turned(watched: &mut Option<tokio::sync::watch::Receiver<std::sync::Arc<crate::authority::InForce>>>) {
    match watched {
        Some(watched) => {
            if watched.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

async fn from_authority(config: &KeeperConfig, key: &PrivateKey) -> Result<pb::Certificates, AskError> {
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

async fn from_masters(
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

fn applicant(config: &KeeperConfig, key: &PrivateKey) -> Result<pb::Applicant, CredentialError> {
    let request = key.request().map_err(|error| CredentialError::Refused(error.to_string()))?;
    let service = match &config.role {
        Role::Service(service) => service.to_string(),
        Role::Master | Role::Operator(_) => String::new(),
    };
    Ok(pb::Applicant { service, holder: config.holder.clone(), request })
}

fn new_key() -> Result<PrivateKey, CredentialError> {
    PrivateKey::generate().map_err(|error| CredentialError::Refused(error.to_string()))
}

/// What a master gave, with the key that it is for.
fn received(
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

fn no_token(config: &KeeperConfig, kept: Option<&Kept>) -> CredentialError {
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
async fn kept(config: &KeeperConfig) -> Result<Option<Kept>, CredentialError> {
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

fn held(kept: &Kept) -> Option<Held> {
    let all = |texts: &[String]| texts.iter().map(|text| crate::authority::unhex(text)).collect::<Option<Vec<_>>>();
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

async fn save(config: &KeeperConfig, mesh: &str, held: &Held) -> Result<(), CredentialError> {
    let hex = |der: &Vec<u8>| crate::authority::hex(der);
    write(config, Kept {
        mesh: mesh.to_owned(),
        role: role_word(&config.role),
        key: held.credential.key.to_pem(),
        chain: held.credential.chain_der.iter().map(hex).collect(),
        roots: held.roots.iter().map(hex).collect(),
        since_unix_ms: held.since_unix_ms,
        not_after_unix_ms: held.not_after_unix_ms,
    })
    .await
}

/// Writes down a key before anybody hears of it, so that it can be asked for again.
async fn save_pending(config: &KeeperConfig, key: &PrivateKey) -> Result<(), CredentialError> {
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

async fn read_token(file: &Path) -> Result<JoinToken, CredentialError> {
    let path = file.display().to_string();
    let file = file.to_owned();
    let read = tasks::spawn_blocking("token-read", move || disk::token(&file)).await;
    let failed = |cause: String| CredentialError::TokenFile { path: path.clone(), cause };
    let text = read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    JoinToken::parse(&text).map_err(|error| failed(error.to_string()))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
