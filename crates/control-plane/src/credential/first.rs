//! The first certificates: kept from before, given inside the process, or enrolled for by a token.

use std::time::Duration;

use synego_identity::{Connector, JoinToken, PrivateKey};
use synego_runtime::lifecycle::Stop;
use synego_runtime::{clock, tasks};
use synego_wire::pb;

use super::ask;
use super::disk::Kept;
use super::given::{
    applicant, from_authority, from_masters, held, kept, new_key, no_token, read_token, received, save, save_pending,
};
use super::keep::Keeper;
use super::{BACKOFF, CredentialError, KeeperConfig, Source};
use crate::uplink::MasterAddress;

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
pub(super) fn free(config: &KeeperConfig) -> Option<&Source> {
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
        let mut refusals = Vec::new();
        for master in masters {
            match ask::enrol(master, token, mesh, applicants.to_vec()).await {
                Ok(given) => return Ok(given),
                // Masters with stores of their own do not know each other's tokens: the next one is asked too.
                Err(refusal) if refusal.is_final() => refusals.push(refusal.to_string()),
                Err(error) => {
                    let error = error.to_string();
                    if *last != error {
                        tracing::warn!(cause = error, "not enrolled yet");
                        *last = error;
                    }
                }
            }
        }
        if refusals.len() == masters.len() {
            return Err(CredentialError::Refused(refusals.join("; ")));
        }
        tokio::time::sleep(tasks::jittered(wait)).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}
