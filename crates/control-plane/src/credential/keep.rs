//! The keeping of a certificate: every one after the first.

use std::time::Duration;

use rand::Rng as _;
use synego_identity::{Connector, Own, PrivateKey, count_handshakes};
use synego_model::{Identity, MeshName};
use synego_runtime::lifecycle::Stop;
use synego_runtime::{clock, tasks};
use synego_wire::pb;

use super::ask;
use super::first::free;
use super::given::{applicant, from_authority, from_masters, read_token, received, save};
use super::{BACKOFF, CredentialError, CredentialHandle, Held, KeeperConfig, Renewal, Source};
use crate::metrics::CredentialMetrics;
use crate::uplink::MasterAddress;

/// Longest sleep at a time: the wall clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(30);
/// At which part of its life a certificate is renewed: at half of it, less up to a tenth, so that masters may be away for
/// half a life with time left to come back.
const RENEWED_AT: std::ops::Range<f64> = 0.45..0.48;
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

impl Keeper {
    pub(super) fn new(config: KeeperConfig, mesh: &str, held: Held) -> Result<Self, CredentialError> {
        let mesh: MeshName = mesh.parse().map_err(|error| CredentialError::Refused(format!("{error}")))?;
        let own = Own::new(Identity { mesh, role: config.role.clone() });
        count_handshakes(&config.metrics, &config.holder, &own);
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

    /// The masters that it asks; none where the authority is in this process.
    #[must_use]
    pub fn masters(&self) -> Vec<MasterAddress> {
        match &self.config.source {
            Source::Masters(masters) => masters.clone(),
            Source::Authority(_) => Vec::new(),
        }
    }

    /// Puts what is held in force.
    fn install(&mut self) -> Result<(), CredentialError> {
        let own = self.handle.own();
        let failed = |error: synego_identity::InstallError| CredentialError::Refused(error.to_string());
        own.trust(&self.held.roots).map_err(failed)?;
        own.install(&self.held.credential).map_err(failed)?;
        self.part = rand::rng().random_range(RENEWED_AT);
        self.metrics.ends(self.held.not_after_unix_ms);
        self.handle.set_renewal(Renewal { at_unix_ms: self.due(), error: String::new() });
        Ok(())
    }

    /// When the certificate in force is renewed: milliseconds since 1970-01-01 UTC.
    fn due(&self) -> u64 {
        let life = self.held.not_after_unix_ms.saturating_sub(self.held.since_unix_ms);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a life in milliseconds is far below 2^52"
        )]
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
                        // One that is over as soon as it came (clocks that differ) is not asked for without end.
                        at = self.due().max(clock::unix_ms() + millis(BACKOFF.0));
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
        Duration::from_millis((life / 100).max(250))
    }

    async fn renew(&mut self) -> Result<(), String> {
        let key = PrivateKey::generate().map_err(|error| error.to_string())?;
        let given = match &self.config.source {
            Source::Authority(_) => from_authority(&self.config, &key).await,
            Source::Masters(masters) if free(&self.config).is_some() => {
                from_masters(&self.config, masters, &Connector::plain(), &key).await
            }
            Source::Masters(_) if self.held.not_after_unix_ms <= clock::unix_ms() => {
                return self.enrol_again(key).await;
            }
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
                self.config
                    .token_file
                    .as_ref()
                    .map_or_else(|| "a file for `--token-file`".to_owned(), |file| file.display().to_string())
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
        // Tried before it replaces anything, here or on the disk: what is refused leaves what is in force.
        fits(&held, self.handle.identity()).map_err(|error| format!("what the master gave is refused: {error}"))?;
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

/// Whether a certificate, its key and the roots go together, and are those of `identity`.
fn fits(held: &Held, identity: Identity) -> Result<(), synego_identity::InstallError> {
    let trial = Own::new(identity);
    trial.trust(&held.roots)?;
    trial.install(&held.credential)
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
