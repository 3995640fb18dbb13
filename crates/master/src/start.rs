//! What the program needs between its command line and its master.

use anyhow::Context as _;
use synego_manifest::{EffectiveValue, Manifest, OsDisk, Request};
use synego_runtime::config::{self as machine, Setting};
use synego_runtime::logs::{self, Format, Journal, JournalConfig, LogConfig};

use crate::args::Args;
use crate::config::MasterConfig;

/// The manifest that the command line names, or the one that is found from this folder upward; without any, defaults.
///
/// # Errors
/// Every mistake in it, drawn.
pub fn manifest(args: &Args) -> Result<Manifest, Vec<String>> {
    let folder = std::env::current_dir().map_err(|error| vec![format!("this folder: {error}")])?;
    let environment = machine::environment();
    let outcome = synego_manifest::load(&Request {
        start: &folder,
        file: args.file.as_deref(),
        profile: args.profile.as_deref(),
        environment: &environment,
        cores: u32::try_from(machine::cores()).unwrap_or(u32::MAX),
        disk: &OsDisk,
        strict: false,
    });
    if !outcome.found {
        return Ok(Manifest::defaults(&folder));
    }
    outcome.manifest.ok_or_else(|| outcome.diagnostics.iter().map(synego_model::Diagnostic::render).collect())
}

/// How the program logs: as the command line says, else the manifest.
#[must_use]
pub fn log(args: &Args, manifest: &Manifest) -> LogConfig {
    let said = manifest.logs.format == synego_manifest::LogFormat::Text;
    let is_text = args.log_format.as_deref().map_or(said, |format| format == "text");
    LogConfig {
        format: if is_text { Format::Text } else { Format::Json },
        level: args.log_level.clone().unwrap_or_else(|| manifest.logs.level.word().to_owned()),
        ..LogConfig::default()
    }
}

/// Where lines are kept: in the manifest's folder of logs where it names one, else in `logs` of that of state. What the
/// program says of itself goes there too.
///
/// # Errors
/// When the folder cannot be made.
pub fn journal(config: &MasterConfig) -> anyhow::Result<Journal> {
    let said = &config.manifest.logs;
    let is_said = |value: &EffectiveValue| value.key == "telemetry.logs.dir" && value.origin != "default";
    let dir = if config.manifest.effective().iter().any(is_said) {
        said.dir.clone()
    } else {
        machine::state_dir(config.manifest.declaration.mesh.as_str()).context("the folder of state")?.join("logs")
    };
    let kept = JournalConfig { dir: Some(dir.clone()), keep: said.keep, max_size: said.max_size };
    let journal = Journal::open(kept).with_context(|| format!("logs in {}", dir.display()))?;
    logs::keep_in(&journal, "mesh", &format!("master@{}", config.node));
    Ok(journal)
}

/// The settings in force, for `--check`.
#[must_use]
pub fn settings(config: &MasterConfig) -> Vec<Setting> {
    let mut settings: Vec<Setting> = [
        ("node", config.node.to_string()),
        ("ingress", config.ingress.to_string()),
        ("mesh-api", config.mesh.map_or_else(|| "none".to_owned(), |address| address.to_string())),
        ("identity", config.identity.as_ref().map_or_else(|| "off".to_owned(), |_| "required".to_owned())),
        ("store", config.store.as_ref().map_or_else(|| "none".to_owned(), |file| format!("redb:{}", file.display()))),
        ("admin", config.admin.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    ]
    .map(|(name, value)| Setting { name: name.into(), value, origin: "flags and manifest".into(), secret: false })
    .into();
    settings.extend(config.manifest.effective().iter().cloned().map(|value| Setting {
        name: value.key,
        value: value.value,
        origin: value.origin,
        secret: value.secret,
    }));
    settings
}
