//! A failure with its reason, carried in the details of a gRPC status as `google.rpc.Status` prescribes.

use prost::Message;
use synego_model::Reason;
use tonic::Status;

use crate::pb;

/// Longest message of a status, in bytes.
const MAX_MESSAGE: usize = 1024;

/// Longest details that are sent, in bytes; further details are left out. Clients that want long ones must take
/// header lists of this size and a third more (base64).
pub const MAX_DETAILS: usize = 256 * 1024;

/// `google.rpc.Status`: what the header `grpc-status-details-bin` holds.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// A message that may stand in a status's details.
pub trait Detail: Message + Default {
    /// Its full name, as in the `.proto` file.
    const NAME: &'static str;
}

impl Detail for pb::Fault {
    const NAME: &'static str = "synego.v1.Fault";
}

impl Detail for pb::ApplyResult {
    const NAME: &'static str = "synego.v1.ApplyResult";
}

/// A failure of the mesh itself, with code, blame and retry as its reason has them.
#[must_use]
pub fn fault(reason: Reason, message: impl Into<String>) -> pb::Fault {
    let mut message = message.into();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    pb::Fault {
        code: pb::Code::from(reason.code()).into(),
        reason: reason.word().to_owned(),
        message,
        blame: pb::Blame::from(reason.blame()).into(),
        retry: pb::Retry::from(reason.retry()).into(),
        from_mesh: true,
        ..pb::Fault::default()
    }
}

/// The status that carries `fault`.
#[must_use]
pub fn from_fault(fault: &pb::Fault) -> Status {
    with_detail(fault, None::<&pb::Fault>)
}

/// The status of a reason with a message for people.
#[must_use]
pub fn refusal(reason: Reason, message: impl Into<String>) -> Status {
    from_fault(&fault(reason, message))
}

/// The status that carries `fault` and one more message, which is left out when it is too long.
#[must_use]
pub fn with_detail<M: Detail>(fault: &pb::Fault, further: Option<&M>) -> Status {
    let mut details = vec![any(fault)];
    details.extend(further.map(any).filter(|any| any.value.len() <= MAX_DETAILS));
    let status = RpcStatus { code: fault.code, message: fault.message.clone(), details };
    Status::with_details(tonic::Code::from_i32(fault.code), fault.message.clone(), status.encode_to_vec().into())
}

fn any<M: Detail>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{}", M::NAME), value: message.encode_to_vec() }
}

/// The failure that a status carries; `None` when it carries none that can be read.
#[must_use]
pub fn to_fault(status: &Status) -> Option<pb::Fault> {
    detail(status)
}

/// The reason that a status carries.
#[must_use]
pub fn reason(status: &Status) -> Option<Reason> {
    to_fault(status).and_then(|fault| Reason::from_word(&fault.reason))
}

/// The message of this kind that a status carries.
#[must_use]
pub fn detail<M: Detail>(status: &Status) -> Option<M> {
    let status = RpcStatus::decode(status.details()).ok()?;
    let found = status.details.iter().find(|any| any.type_url.rsplit('/').next() == Some(M::NAME))?;
    M::decode(found.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_comes_back_out_of_its_status() {
        for reason in Reason::ALL {
            let sent = fault(*reason, "users-1 is taken");
            let status = from_fault(&sent);
            assert_eq!(status.code() as i32, reason.code() as i32);
            assert_eq!(to_fault(&status), Some(sent));
            assert_eq!(super::reason(&status), Some(*reason));
        }
    }

    #[test]
    fn a_status_without_readable_details_carries_no_fault() {
        assert_eq!(to_fault(&Status::internal("plain")), None);
        assert_eq!(to_fault(&Status::with_details(tonic::Code::Internal, "x", vec![0xff; 64].into())), None);
    }

    #[test]
    fn a_second_detail_is_found_by_its_kind_and_left_out_when_too_long() {
        let result = pb::ApplyResult { revision: 7, ..pb::ApplyResult::default() };
        let status = with_detail(&fault(Reason::ManifestRefused, "2 mistakes"), Some(&result));
        assert_eq!(detail::<pb::ApplyResult>(&status), Some(result));
        let long = pb::Diagnostic { message: "x".repeat(MAX_DETAILS), ..pb::Diagnostic::default() };
        let result = pb::ApplyResult { diagnostic: vec![long], ..pb::ApplyResult::default() };
        let status = with_detail(&fault(Reason::ManifestRefused, "1 mistake"), Some(&result));
        assert_eq!(detail::<pb::ApplyResult>(&status), None);
        assert!(to_fault(&status).is_some());
    }
}
