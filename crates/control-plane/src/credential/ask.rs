//! Asking masters for certificates: by a token, by the present certificate, or inside one process by neither.

use std::time::Duration;

use synego_identity::{Connector, JoinToken};
use synego_model::Reason;
use synego_wire::{pb, status};
use tonic::{Code, Status};

use crate::link::{self, MAX_MESSAGE};
use crate::uplink::MasterAddress;

/// Time for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a master gave no certificate.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum AskError {
    /// It was not reached, or not understood.
    #[error("{address}: {cause}")]
    Unreached { address: String, cause: String },
    /// It said no.
    #[error("{address}: {}", .status.message())]
    Refused { address: String, status: Box<Status> },
}

impl AskError {
    /// Whether asking the same again is of no use.
    pub(super) fn is_final(&self) -> bool {
        let Self::Refused { status, .. } = self else { return false };
        match status::reason(status) {
            Some(Reason::RateLimited) => false,
            Some(_) => true,
            // A master from before there were certificates.
            None => status.code() == Code::Unimplemented,
        }
    }
}

/// Enrols at `master` by a token.
pub(super) async fn enrol(
    master: &MasterAddress,
    token: &JoinToken,
    mesh: &str,
    applicant: Vec<pb::Applicant>,
) -> Result<pb::Certificates, AskError> {
    let request = pb::EnrolRequest { token: token.text().to_string(), mesh: mesh.to_owned(), applicant };
    let connector = Connector::pinned(token.root());
    ask(master, &connector, async |mut client| client.enrol(request).await).await
}

/// Renews at `master`.
pub(super) async fn renew(
    master: &MasterAddress,
    connector: &Connector,
    applicant: pb::Applicant,
) -> Result<pb::Certificates, AskError> {
    let request = pb::RenewRequest { applicant: Some(applicant) };
    ask(master, connector, async |mut client| client.renew(request).await).await
}

type Client = pb::mesh_client::MeshClient<tonic::transport::Channel>;

async fn ask<F>(master: &MasterAddress, connector: &Connector, call: F) -> Result<pb::Certificates, AskError>
where
    F: AsyncFnOnce(Client) -> Result<tonic::Response<pb::Certificates>, Status>,
{
    let unreached = |cause: String| AskError::Unreached { address: master.to_string(), cause };
    let answered = tokio::time::timeout(ANSWER_WITHIN, async {
        let carrier = link::dial(master, connector).await.map_err(|error| unreached(error.to_string()))?;
        let channel = link::channel(carrier).await.map_err(|error| unreached(error.to_string()))?;
        let client = Client::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        call(client).await.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            // Made on this side, or by a master that ends.
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal => {
                unreached(status.message().to_owned())
            }
            _ => AskError::Refused { address: master.to_string(), status: Box::new(status) },
        })
    });
    answered.await.map_err(|_| unreached(format!("no answer within {ANSWER_WITHIN:?}")))?
}
