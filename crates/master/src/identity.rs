//! The master's own part in certificates: its authority out of the store, and its own certificate.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use synego_control_plane::authority::{AuthorityConfig, AuthorityHandle};
use synego_control_plane::credential::{self, Keeper, KeeperConfig, Source};
use synego_control_plane::store::RedbStore;
use synego_identity::SealingKey;
use synego_manifest::Manifest;
use synego_model::Role;
use synego_runtime::config as machine;
use synego_runtime::{Host, tasks};

/// Where a master keeps its authority, and what it is sealed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// Where the key is under which the roots are sealed.
    pub key: KeySource,
    /// Certificate and key (PEM) of the root to begin with; `None`: one is made.
    pub first_root: Option<(PathBuf, PathBuf)>,
}

/// Where the sealing key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file, which is made when it is not there.
    File(PathBuf),
    /// On the standard output of a command of the shell.
    Command(String),
}

impl IdentityConfig {
    /// What the manifest and the environment say, below `state`, the folder of the mesh; `None`: the mesh runs without
    /// certificates.
    #[must_use]
    pub fn of(manifest: &Manifest, state: &Path) -> Option<Self> {
        let spec = &manifest.identity;
        let file = || machine::env("SYNEGO_KEY_FILE").map_or_else(|| state.join("ca.key"), PathBuf::from);
        let key = machine::env("SYNEGO_KEY_COMMAND").map_or_else(|| KeySource::File(file()), KeySource::Command);
        spec.mtls.then(|| Self { key, first_root: spec.ca.clone() })
    }
}

/// Opens the authority, and takes a certificate for the master named `name` from it.
pub(crate) async fn open(
    config: IdentityConfig,
    store: Arc<RedbStore>,
    manifest: &Manifest,
    name: &str,
    host: &Host,
) -> anyhow::Result<(AuthorityHandle, Keeper)> {
    let mesh = manifest.declaration.mesh.clone();
    let life = life(manifest)?;
    let opened = tasks::spawn_blocking("authority-open", move || -> anyhow::Result<_> {
        let key = sealing_key(&config.key)?;
        let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let first_root = match &config.first_root {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        Ok((key, first_root))
    });
    let (key, first_root) = opened.await??;
    let config = AuthorityConfig { store, key, mesh: mesh.clone(), life, first_root };
    let authority = AuthorityHandle::open(config).await.context("the certificate authority")?;
    let keeper = KeeperConfig {
        mesh: Some(mesh),
        role: Role::Master,
        holder: name.to_owned(),
        source: Source::Authority(authority.clone()),
        file: None,
        token_file: None,
        metrics: host.metrics(),
    };
    let keepers = credential::open(vec![keeper], None, &host.stop()).await.context("the master's own certificate")?;
    let keeper = keepers.into_iter().next().context("the master has no certificate")?;
    Ok((authority, keeper))
}

/// How long certificates live. The variable is for tests: shorter than a manifest may say.
fn life(manifest: &Manifest) -> anyhow::Result<Duration> {
    let Some(text) = machine::env("SYNEGO_CERTIFICATE_LIFE") else { return Ok(manifest.declaration.life) };
    let seconds = text.strip_suffix('s').and_then(|number| number.parse::<u64>().ok());
    let seconds = seconds.filter(|seconds| *seconds >= 5);
    let seconds =
        seconds.with_context(|| format!("SYNEGO_CERTIFICATE_LIFE: `{text}` is none, such as 60s (at least 5s)"))?;
    Ok(Duration::from_secs(seconds))
}

fn sealing_key(source: &KeySource) -> anyhow::Result<SealingKey> {
    match source {
        KeySource::File(path) => Ok(SealingKey::load_or_create(path)?),
        KeySource::Command(command) => {
            let output =
                Command::new("sh").arg("-c").arg(command).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
            let output = output.with_context(|| format!("the key command `{command}`"))?;
            anyhow::ensure!(output.status.success(), "the key command `{command}` failed: {}", output.status);
            let key = std::str::from_utf8(&output.stdout).ok().and_then(SealingKey::parse);
            key.with_context(|| {
                format!("the key command `{command}` printed no key: 64 hexadecimal digits are expected")
            })
        }
    }
}
