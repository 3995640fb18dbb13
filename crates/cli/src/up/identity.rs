//! The certificates of this machine's services: one for each service, in memory beside an own master, else on the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use synego_manifest::Manifest;
use synego_model::{NodeName, Role, ServiceName};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Host, Stop};
use synego_sidecar::{CredentialError, CredentialHandle, KeeperConfig, MasterAddress, Source, enrol};

use crate::failure::Failure;

/// How long masters elsewhere are asked for the first certificates.
const WITHIN: Duration = Duration::from_secs(60);

/// What the certificates of a machine follow from.
pub(super) struct Wanted<'a> {
    pub(super) manifest: &'a Manifest,
    /// The services that run here.
    pub(super) services: Vec<ServiceName>,
    pub(super) node: &'a NodeName,
    pub(super) masters: Vec<MasterAddress>,
    /// Folder of the certificates; `None`: the master is in this process, and they are kept nowhere.
    pub(super) folder: Option<PathBuf>,
    /// File of the join token.
    pub(super) token_file: Option<PathBuf>,
}

/// The certificates of all services, renewed until `life` ends. Empty where the mesh runs without.
///
/// # Errors
/// Above all without a token on a machine that joins for the first time.
pub(super) async fn open(
    wanted: Wanted<'_>,
    host: &Host,
    life: &Stop,
) -> Result<BTreeMap<ServiceName, CredentialHandle>, Failure> {
    if !wanted.manifest.identity.mtls {
        return Ok(BTreeMap::new());
    }
    let of = |service: &ServiceName| KeeperConfig {
        mesh: Some(wanted.manifest.declaration.mesh.clone()),
        role: Role::Service(service.clone()),
        holder: format!("{service}@{}", wanted.node),
        source: Source::Masters(wanted.masters.clone()),
        file: wanted.folder.as_ref().map(|folder| folder.join(format!("identity-{service}"))),
        token_file: wanted.token_file.clone(),
        metrics: host.metrics(),
    };
    let configs = wanted.services.iter().map(of).collect();
    let keepers = enrol(configs, Some(WITHIN), &host.stop()).await.map_err(|error| failed(&error))?;
    let mut handles = BTreeMap::new();
    for (service, keeper) in wanted.services.iter().zip(keepers) {
        handles.insert(service.clone(), keeper.handle());
        tasks::spawn("identity", Kind::Critical, keeper.run(life.clone()));
    }
    Ok(handles)
}

fn failed(error: &CredentialError) -> Failure {
    let failure = Failure::new("this machine cannot join the mesh").cause(error.to_string());
    match error {
        CredentialError::NoToken { .. } | CredentialError::Ended { .. } => failure,
        CredentialError::Refused(_) => {
            failure.help("make another token where a master runs, `synego token create --out FILE`, and give it with `--token-file FILE`")
        }
        CredentialError::NotInTime { .. } => failure.help("is a master running there, and reachable from here?"),
        CredentialError::TokenFile { .. } | CredentialError::Kept { .. } | CredentialError::Stopped => failure,
    }
}
